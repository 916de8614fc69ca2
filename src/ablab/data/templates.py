"""How a conversation becomes tokens and labels: a template's segments, each tokenised on its own.

A template turns turns into segments of text, of which the assistant's words and their end are supervised. Ids and
labels of the segments are put one behind the other; no offset is ever counted in a whole string, which is what lets a
label mismatch silently zero a loss elsewhere. The prompt of a question is made by the same code from the same
segments, so a model is asked exactly as it was trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ablab.contract.failure import ConfigError
from ablab.data.conversations import IMAGE, Conversation, Turn

#: Label of a token that is not supervised.
IGNORE = -100
#: LLaVA's system sentence.
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text that is tokenised alone.

    Args:
        text: the piece.
        supervised: whether its tokens are targets.
        markup: whether special tokens written in it count as such; never in what people wrote.
        end: whether the template's end token follows it.
    """

    text: str
    supervised: bool = False
    markup: bool = False
    end: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """How the turns of a model family are written.

    Args:
        name: what a study calls it.
        system: sentence at the beginning, where the conversation has none of its own.
        before_system, after_system, before_user, after_user, before_answer, after_end: what is written around them.
        lead: what stands before a question or an answer and is part of it (a space, which tokenizers join to the word).
        end: name of the token that ends an answer; None takes the tokenizer's end of sentence.
        plain: pretraining on captions: what the user says is dropped, only the image stays.
        begin: whether the tokenizer's beginning-of-sentence token stands first, where it has one.
    """

    name: str
    system: str = ""
    before_system: str = ""
    after_system: str = ""
    before_user: str = ""
    after_user: str = ""
    before_answer: str = ""
    lead: str = ""
    end: str | None = None
    after_end: str = ""
    plain: bool = False
    begin: bool = True

    def segments(self, turns: Sequence[Turn]) -> Iterator[Segment]:
        """Yield the segments of a conversation; one that ends with the user's turn becomes a prompt."""
        yield from _joined(self._captions(turns) if self.plain else self._written(turns))

    def _written(self, turns: Sequence[Turn]) -> Iterator[Segment]:
        own = turns[0].text if turns and turns[0].role == "system" else self.system
        if own:
            yield Segment(self.before_system, markup=True)
            yield Segment(own)
            yield Segment(self.after_system, markup=True)
        for turn in turns:
            if turn.role == "user":
                yield Segment(self.before_user, markup=True)
                yield Segment(self.lead + turn.text)
                yield Segment(self.after_user + self.before_answer, markup=True)
            elif turn.role == "assistant":
                yield Segment(self.lead + turn.text, supervised=True, end=True)
                yield Segment(self.after_end, markup=True)

    def _captions(self, turns: Sequence[Turn]) -> Iterator[Segment]:
        for turn in turns:
            if turn.role == "user":
                yield Segment(IMAGE * turn.text.count(IMAGE))
            elif turn.role == "assistant":
                yield Segment(turn.text.strip() + "\n", supervised=True)


def _joined(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Yield segments without empty ones, neighbours of markup joined: a space then belongs to the word behind it."""
    held: Segment | None = None
    for segment in segments:
        if segment.markup and held is not None:
            held = replace(held, text=held.text + segment.text)
            continue
        if held is not None:
            yield held
            held = None
        if segment.markup:
            held = segment
        elif segment.text or segment.end:
            yield segment
    if held is not None and held.text:
        yield held


_SPOKEN = Template(
    name="llama",
    system=SYSTEM,
    after_system=" ",
    before_user="USER:",
    after_user=" ",
    before_answer="ASSISTANT:",
    lead=" ",
)
_CHATML = Template(
    name="chatml",
    system="You are a helpful assistant.",
    before_system="<|im_start|>system\n",
    after_system="<|im_end|>\n",
    before_user="<|im_start|>user\n",
    after_user="<|im_end|>\n",
    before_answer="<|im_start|>assistant\n",
    end="<|im_end|>",
    after_end="\n",
    begin=False,
)

TEMPLATES: dict[str, Template] = {
    "llama": replace(_SPOKEN, end="</s>"),
    "vicuna": replace(_SPOKEN, name="vicuna", end="</s>"),
    "phi": replace(_SPOKEN, name="phi", end="<|endoftext|>"),
    "stablelm": replace(_SPOKEN, name="stablelm", end="<|endoftext|>"),
    "qwen2": replace(_SPOKEN, name="qwen2", end="<|im_end|>"),
    "qwen2-base": replace(_SPOKEN, name="qwen2-base", end="<|endoftext|>"),
    "gemma": replace(_SPOKEN, name="gemma", end="<eos>"),
    "chatml": _CHATML,
    "gemma-chat": Template(
        name="gemma-chat",
        before_user="<start_of_turn>user\n",
        after_user="<end_of_turn>\n",
        before_answer="<start_of_turn>model\n",
        end="<end_of_turn>",
        after_end="\n",
    ),
    "plain": Template(name="plain", plain=True),
}

#: Template of a model by transformers' model_type.
BY_MODEL_TYPE = {
    "llama": "llama",
    "mistral": "llama",
    "minicpm": "llama",
    "phi": "phi",
    "phi3": "phi",
    "stablelm": "stablelm",
    "qwen2": "qwen2",
    "qwen3": "qwen2",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "internlm2": "chatml",
}


def template_of(name: str, *, model_type: str, system: str | None = None) -> Template:
    """Return a template by its name; "auto" goes by the language model's type.

    Args:
        name: of the template.
        model_type: transformers' name of the architecture.
        system: sentence at the beginning instead of the template's own; "" is none.

    Raises:
        ConfigError: unknown name, or no template is known for the type.
    """
    if name == "auto":
        name = BY_MODEL_TYPE.get(model_type, "")
        if not name:
            raise ConfigError(
                f"no chat template is known for {model_type}; name one: {', '.join(TEMPLATES)}", model_type=model_type
            )
    if name not in TEMPLATES:
        raise ConfigError(f"unknown chat template {name!r}; known: {', '.join(TEMPLATES)}")
    found = TEMPLATES[name]
    return found if system is None or found.plain else replace(found, system=system)


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A conversation as tokens; an image is as many image tokens as the model makes of it.

    Args:
        ids: int64 (T,).
        labels: int64 (T,), IGNORE where nothing is supervised; not shifted.
        images: names of its pictures that are left after truncation, in order.
        lost: supervised tokens that truncation took.
    """

    ids: np.ndarray
    labels: np.ndarray
    images: tuple[str, ...] = ()
    lost: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> int:
        """Number of tokens that are predicted: supervised ones, but for the first of the row."""
        return int((self.labels[1:] != IGNORE).sum())


class Encoder:
    """Conversations to tokens, with one tokenizer and one template.

    Args:
        tokenizer: of transformers.
        template: how turns are written.
        image_token: id that stands for one feature of an image.
        image_tokens: features of an image.
        max_length: tokens kept of a conversation; an image is never cut in two.

    Raises:
        ConfigError: the tokenizer has no such end token.
    """

    def __init__(
        self, tokenizer: Any, template: Template, *, image_token: int, image_tokens: int, max_length: int | None = None
    ) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.image_token, self.image_tokens, self.max_length = image_token, image_tokens, max_length
        self.end = self._end()
        first = tokenizer.convert_ids_to_tokens(self._raw("a", markup=False)[:1])
        # A sentencepiece tokenizer writes a space before every text by itself.
        self._prefixes = bool(first) and str(first[0]).startswith("▁")
        begin = tokenizer.bos_token_id if template.begin else None
        self._begin = [] if begin is None else [int(begin)]
        self._fixed: dict[tuple[str, bool], list[int]] = {}

    def _end(self) -> int:
        name = self.template.end
        found = self.tokenizer.eos_token_id if name is None else self.tokenizer.get_vocab().get(name)
        if found is None:
            raise ConfigError(
                f"the template {self.template.name} ends answers with {name or 'the end of sentence'}, which this "
                f"tokenizer has not (its end of sentence is {self.tokenizer.eos_token!r}); name a template that fits"
            )
        return int(found)

    def encode(self, conversation: Conversation, *, tiles: Sequence[int] | None = None) -> Encoded:
        """Return a conversation with its labels, cut at max_length.

        Args:
            conversation: turns and names of pictures.
            tiles: how many tiles each picture is cut into, each as many features as one image; None is one each.
        """
        ids: list[int] = list(self._begin)
        labels: list[int] = [IGNORE] * len(ids)
        counts = list(tiles) if tiles is not None else [1] * len(conversation.images)
        left = iter(counts)
        for segment in self.template.segments(conversation.turns):
            own = self._segment(segment, left)
            ids += own
            labels += own if segment.supervised else [IGNORE] * len(own)
        return self._cut(np.array(ids, np.int64), np.array(labels, np.int64), conversation.images, counts)

    def prompt(
        self, text: str, *, images: int = 0, system: str | None = None, tiles: Sequence[int] | None = None
    ) -> np.ndarray:
        """Return the tokens of a question that awaits its answer, int64 (T,); `text` may hold <image>."""
        left = iter(tiles or ())
        if images and IMAGE not in text:
            text = f"{IMAGE}\n" * images + text
        turns = [Turn("user", text)] if system is None else [Turn("system", system), Turn("user", text)]
        ids = list(self._begin)
        for segment in self.template.segments(turns):
            ids += self._segment(segment, left)
        return np.array(ids, np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated tokens, without special ones."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _segment(self, segment: Segment, tiles: Iterator[int]) -> list[int]:
        ids: list[int] = []
        for place, piece in enumerate(segment.text.split(IMAGE) if not segment.markup else [segment.text]):
            if place:
                ids += [self.image_token] * (self.image_tokens * next(tiles, 1))
            ids += self._text(piece, markup=segment.markup)
        if segment.end:
            ids.append(self.end)
        return ids

    def _text(self, text: str, *, markup: bool) -> list[int]:
        if self._prefixes and text.startswith(" "):
            text = text[1:]
        if not text:
            return []
        if not markup:
            return self._raw(text, markup=False)
        key = (text, markup)
        if key not in self._fixed:
            self._fixed[key] = self._raw(text, markup=True)
        return self._fixed[key]

    def _raw(self, text: str, *, markup: bool) -> list[int]:
        made = self.tokenizer(text, add_special_tokens=False, split_special_tokens=not markup)
        return list(made["input_ids"])

    def _cut(self, ids: np.ndarray, labels: np.ndarray, images: tuple[str, ...], tiles: Sequence[int]) -> Encoded:
        most = self.max_length
        if most is None or len(ids) <= most:
            return Encoded(ids=ids, labels=labels, images=images)
        marks = ids[:most] == self.image_token
        ends = np.cumsum(tiles) * max(1, self.image_tokens)
        kept = int(np.searchsorted(ends, marks.sum(), side="right"))
        whole = int(ends[kept - 1]) if kept else 0
        if int(marks.sum()) > whole:
            # The cut goes through an image: cut before it.
            most = int(np.flatnonzero(marks)[whole])
        lost = int((labels[most:] != IGNORE).sum())
        return Encoded(ids=ids[:most], labels=labels[:most], images=images[:kept], lost=lost)
