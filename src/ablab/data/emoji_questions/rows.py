"""Rows of training in LLaVA's format: captions for pretraining, conversations for instruction tuning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablab.contract.seeds import stream_seed
from ablab.data.emoji_questions.asking import Asker, questions
from ablab.data.emoji_questions.captions import detailed, short
from ablab.data.emoji_questions.scenes import Scene, several, single
from ablab.data.emoji_questions.things import LANGUAGES, Drawing, Things

#: Shares of pictures with one thing and with several; the rest has several and a number.
ONE, SEVERAL = 0.45, 0.4
#: Share of rows of the `share` mixture that are detailed captions instead of short questions.
DETAILED = 0.25
_DESCRIBE = {"en": "Describe the image in detail.", "ko": "그림을 자세히 설명하세요."}


@dataclass(frozen=True, slots=True)
class Row:
    """A row in LLaVA's format, and the scene its picture is drawn from (None without picture)."""

    content: dict[str, Any]
    scene: Scene | None


class Rows:
    """Makes rows from the drawings of one split.

    Args:
        things: what is drawn.
        split: whose drawings.
        seed: of all draws.
        korean: share of Korean rows.
    """

    def __init__(self, things: Things, split: str, *, seed: int, korean: float) -> None:
        self._things, self._split, self._seed, self._korean = things, split, seed, korean
        self._drawings = things.drawings(split)
        self._asker = Asker(things, korean=korean)

    def scenes(self, count: int, name: str, *, one: float = ONE, several_: float = SEVERAL) -> Iterator[Scene]:
        """Yield pictures; each drawing of the split comes equally often as the only thing of a picture."""
        generator = self._generator(f"{name}/scenes")
        order = generator.permutation(len(self._drawings))
        alone = 0
        for _ in range(count):
            draw = generator.random()
            if draw < one:
                yield single(self._drawings[order[alone % len(order)]], generator)
                alone += 1
            else:
                number = None if draw < one + several_ else int(generator.integers(10, 100))
                yield several(self._some(generator, 3 if number is not None else 4), generator, number=number)

    def captions(self, count: int, *, long: bool) -> Iterator[Row]:
        """Yield rows of pretraining: a picture and its caption, the same pictures for short and long ones."""
        generator = self._generator("captions/language")
        for number, scene in enumerate(self.scenes(count, "captions", one=0.6, several_=0.25)):
            language = LANGUAGES[int(generator.random() < self._korean)]
            text = detailed(scene, language) if long or not scene.drawings else short(scene, language)
            yield self._row(f"caption-{number}", scene, [(_DESCRIBE[language], text)], language)

    def conversations(self, count: int, *, share: bool) -> Iterator[Row]:
        """Yield rows of instruction tuning: one picture and one to four questions.

        With `share`, some rows are detailed captions instead, as ShareGPT4V replaces a part of LLaVA's mixture; all
        others are the same.
        """
        generator = self._generator("conversations")
        for number, scene in enumerate(self.scenes(count, "conversations")):
            asked = questions(self._asker, scene, generator, turns=int(generator.integers(1, 5)))
            language, replaced = asked[0].language, generator.random() < DETAILED
            # As in LLaVA's mixture, how to answer is said once, with the first question.
            turns = [(one.question if place else one.prompt, one.answer) for place, one in enumerate(asked)]
            if share and replaced:
                turns = [(_DESCRIBE[language], detailed(scene, language))]
            yield self._row(f"question-{number}", scene, turns, language)

    def _row(self, name: str, scene: Scene, turns: Sequence[tuple[str, str]], language: str) -> Row:
        said = []
        for place, (question, answer) in enumerate(turns):
            said.append({"from": "human", "value": question if place else f"<image>\n{question}"})
            said.append({"from": "gpt", "value": answer})
        content = {
            "id": f"{self._split}-{name}",
            "image": f"{self._split}-{name}.png",
            "language": language,
            "concepts": sorted({drawing.thing.code for drawing in scene.drawings}),
            "objects": [_object(item) for item in scene.items],
            "conversations": said,
        }
        return Row(content, scene)

    def _some(self, generator: np.random.Generator, most: int) -> list[Drawing]:
        count = int(generator.integers(1, most + 1)) if most < 4 else int(generator.integers(2, most + 1))
        return [self._drawings[i] for i in generator.integers(0, len(self._drawings), size=count)]

    def _generator(self, name: str) -> np.random.Generator:
        return np.random.default_rng(stream_seed(self._seed, f"emoji/{self._split}/{name}"))


def _object(item: Any) -> dict[str, Any]:
    # Digits are no label: a tower that is to read them has to learn it in the phases that unlock it.
    words = ["number"] if item.drawing is None else list(item.drawing.thing.words)
    return {"box": list(item.box), "words": words}
