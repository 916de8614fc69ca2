"""The questions of the test, in the official files of the benchmarks whose scores they stand in for.

All pictures show things that no picture and no text of training shows; only `vqav2`, which asks for names, shows the
other vendor's drawing of things that training names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablab.contract.seeds import stream_seed
from ablab.data.emoji_questions.asking import Asked, Asker
from ablab.data.emoji_questions.rows import Rows
from ablab.data.emoji_questions.scenes import Scene, draw, single
from ablab.data.emoji_questions.things import Pictures, Things

if TYPE_CHECKING:
    from PIL.Image import Image

#: Drawn as JPEG, since the official files name such images.
_QUALITY = 95


class Writer:
    """Writes the benchmarks of one split into folders below a folder.

    Args:
        folder: where.
        things: what is asked about.
        split: "test" or "val".
        count: questions of a benchmark, or of a part of one.
        seed: of all draws.
    """

    def __init__(self, folder: Path, things: Things, *, split: str, count: int, seed: int) -> None:
        self._folder, self._things, self._split, self._count, self._seed = folder, things, split, count, seed
        self._rows = Rows(things, split, seed=seed, korean=0.0)
        self._asker = Asker(things, korean=0.0)
        self._pictures = Pictures()

    def gqa(self) -> None:
        """Open questions with short answers: kind, category, number of things, place."""
        folder, generator = self._begin("gqa")
        found: dict[str, Any] = {}
        families = ("kind", "category", "count", "place")
        for number, (scene, asked) in enumerate(self._asked("gqa", families, generator)):
            name = f"gqa{number}"
            self._save(scene, folder / "images" / f"{name}.jpg")
            found[str(number)] = {
                "imageId": name,
                "question": asked.question,
                "answer": asked.answer,
                "types": {"structural": asked.family},
            }
        _write(folder / "testdev_balanced_questions.json", found)

    def pope(self) -> None:
        """Yes or no, each picture asked as often for what is there as for what is not, in three splits."""
        folder, generator = self._begin("pope")
        scenes = list(self._rows.scenes(self._count, "pope", one=0.0, several_=1.0))
        for number, scene in enumerate(scenes):
            self._save(scene, folder / "images" / f"pope{number}.jpg")
        for group in ("random", "popular", "adversarial"):
            lines = []
            for number, scene in enumerate(scenes):
                there = (number + number // len(scenes)) % 2 == 0
                asked = self._asker.present(scene, generator, "en", there=there, group=group)
                lines.append(
                    {
                        "question_id": number + 1,
                        "image": f"pope{number}.jpg",
                        "text": asked.question,
                        "label": asked.answer,
                    }
                )
            (folder / f"coco_pope_{group}.json").write_text(
                "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
            )

    def scienceqa(self) -> None:
        """One of four categories, by its letter."""
        folder, generator = self._begin("scienceqa")
        problems: dict[str, Any] = {}
        for number, (scene, asked) in enumerate(self._asked("scienceqa", ("choice",), generator)):
            key = str(number + 1)
            place = folder / "images" / "test" / key
            place.mkdir(parents=True, exist_ok=True)
            draw(scene, self._pictures).save(place / "image.png")
            problems[key] = {
                "question": asked.question,
                "choices": list(asked.choices),
                "answer": "ABCD".index(asked.answer),
                "hint": "",
                "image": "image.png",
                "split": "test",
                "subject": "natural science",
            }
        _write(folder / "problems.json", problems)
        _write(folder / "pid_splits.json", {"train": [], "val": [], "test": list(problems)})

    def textvqa(self) -> None:
        """Read a number of two digits beside other things; ten equal answers."""
        folder, generator = self._begin("textvqa")
        data = []
        for number, (scene, asked) in enumerate(self._asked("textvqa", ("digits",), generator)):
            self._save(scene, folder / "images" / f"text{number}.jpg")
            data.append(
                {
                    "question_id": number,
                    "image_id": f"text{number}",
                    "question": asked.question,
                    "answers": [asked.answer] * 10,
                    "set_name": "val",
                }
            )
        _write(folder / "TextVQA_val.json", {"dataset_type": "val", "data": data})

    def vqav2(self) -> None:
        """Names; of ten answers four are the name, the others names and tags in turn."""
        folder, generator = self._begin("vqav2")
        drawings = self._things.withheld()
        order = generator.permutation(len(drawings))
        asked_of, annotations = [], []
        for number in range(min(self._count, len(drawings))):
            scene = single(drawings[order[number]], generator)
            asked = self._asker.name(scene, generator, "en")
            self._save(scene, folder / "images" / f"COCO_val2014_{number:012d}.jpg")
            words = [asked.answer, *asked.accepted]
            answers = [asked.answer] * 4 + [words[i % len(words)] for i in range(6)]
            asked_of.append({"question_id": number, "image_id": number, "question": asked.question})
            annotations.append(
                {
                    "question_id": number,
                    "image_id": number,
                    "answer_type": "other",
                    "multiple_choice_answer": asked.answer,
                    "answers": [
                        {"answer_id": i + 1, "answer": text, "answer_confidence": "yes"}
                        for i, text in enumerate(answers)
                    ],
                }
            )
        _write(folder / "questions.json", {"data_subtype": "val2014", "questions": asked_of})
        _write(folder / "annotations.json", {"data_subtype": "val2014", "annotations": annotations})

    def korean(self) -> None:
        """All families but choices and digits in Korean, exact match, in Ablab's own form of questions."""
        folder, generator = self._begin("korean")
        lines = []
        families = ("kind", "category", "count", "place", "presence")
        for number, (scene, asked) in enumerate(self._asked("korean", families, generator, language="ko")):
            self._save(scene, folder / "images" / f"korean{number}.jpg")
            lines.append(
                {
                    "id": f"korean{number}",
                    "image": f"korean{number}.jpg",
                    "question": asked.prompt,
                    "answers": [asked.answer],
                    "language": "ko",
                    "group": asked.family,
                    "scorer": "exact",
                }
            )
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "questions.jsonl").write_text(text, encoding="utf-8")

    def _asked(
        self, name: str, families: tuple[str, ...], generator: np.random.Generator, *, language: str = "en"
    ) -> Iterator[tuple[Scene, Asked]]:
        """Yield as many questions as wanted, the families in turn."""
        alone = {"kind", "category", "choice"}
        for number in range(self._count):
            family = families[number % len(families)]
            one, several = (1.0, 0.0) if family in alone else (0.0, 0.0 if family == "digits" else 1.0)
            for attempt in range(100):
                part = f"{name}/{number}/{attempt}"
                (scene,) = self._rows.scenes(1, part, one=one, several_=several)
                if family in self._asker.families(scene):
                    yield scene, self._asker.ask(family, scene, generator, language=language)
                    break

    def _begin(self, name: str) -> tuple[Path, np.random.Generator]:
        folder = self._folder / name
        (folder / "images").mkdir(parents=True, exist_ok=True)
        return folder, np.random.default_rng(stream_seed(self._seed, f"emoji/{self._split}/{name}"))

    def _save(self, scene: Scene, path: Path) -> None:
        image: Image = draw(scene, self._pictures)
        image.save(path, quality=_QUALITY)


#: What writes each benchmark, by its folder's name.
WRITERS: dict[str, Callable[[Writer], None]] = {
    "gqa": Writer.gqa,
    "pope": Writer.pope,
    "scienceqa": Writer.scienceqa,
    "textvqa": Writer.textvqa,
    "vqav2": Writer.vqav2,
    "korean": Writer.korean,
}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
