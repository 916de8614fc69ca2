"""Dialogues and summaries as token ids: whose tokenizer, which special tokens, what is cut off.

A checkpoint's tokenizer is asked what it puts around a text; where it forgets the end (KoBART does), the end is added,
since a model that never saw one never stops. Tags (#Person1#) are tokens that decoding keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ablab.contract.failure import ConfigError
from ablab.data.dialogues import Dialogue

#: Special tokens of a tokenizer that is trained here, in the order of their ids.
SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>", "mask_token": "<mask>"}
#: Text between dialogue and summary that a causal model gets where the study says nothing.
SUFFIX = "\nSummary: "


def train_tokenizer(
    texts: Iterable[str], folder: Path, *, name: Literal["unigram", "bpe"], vocabulary: int, tags: Sequence[str]
) -> int:
    """Train a subword tokenizer on texts and write it in transformers' format; return its size.

    unigram (Kudo 2018) as T5 and mT5 have it, bpe (Sennrich 2016) on characters as KoBART has it. A newline is a
    token of its own, blanks are part of the word that follows, tags are never split.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer, UnigramTrainer

    special = list(SPECIAL.values())
    unigram = name == "unigram"
    made = Tokenizer(models.Unigram() if unigram else models.BPE(unk_token=SPECIAL["unk_token"]))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\n"), "isolated"), pre_tokenizers.Metaspace(prepend_scheme="first")]
    )
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    size = max(vocabulary - len(tags), len(special) + 1)
    trainer: Any
    if unigram:
        trainer = UnigramTrainer(
            vocab_size=size, special_tokens=special, unk_token=SPECIAL["unk_token"], show_progress=False
        )
    else:
        trainer = BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    made.train_from_iterator(_without(texts, tags), trainer)
    made.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    end = SPECIAL["eos_token"]
    made.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, special.index(end))])
    folder.mkdir(parents=True, exist_ok=True)
    _wrapped(made).save_pretrained(folder)
    return int(made.get_vocab_size())


def _without(texts: Iterable[str], tags: Sequence[str]) -> Iterator[str]:
    """Yield texts with a blank in place of each tag, so that no piece of a tag is learnt."""
    for text in texts:
        for tag in tags:
            text = text.replace(tag, " ")
        yield text


def _wrapped(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIAL)


def open_trained(folder: Path) -> Any:
    """Return a tokenizer that `train_tokenizer` wrote."""
    from tokenizers import Tokenizer

    return _wrapped(Tokenizer.from_file(str(folder / "tokenizer.json")))


def add_tags(tokenizer: Any, tags: Sequence[str]) -> list[int]:
    """Make every tag one token that decoding keeps; return the ids of those that were new to the vocabulary."""
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    missing = [tag for tag in tags if tag not in known]
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    return [int(tokenizer.convert_tokens_to_ids(tag)) for tag in missing]


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Most tokens of what goes in and of what comes out, special tokens included."""

    source: int
    target: int


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A row as ids.

    Args:
        source: ids of prefix, dialogue and suffix, within the limit.
        target: ids of the summary with its end, within the limit; empty where there is none.
        whole_source, whole_target: tokens before anything was cut off.
    """

    source: np.ndarray
    target: np.ndarray
    whole_source: int
    whole_target: int


class Encoder:
    """Turns rows into ids.

    Args:
        tokenizer: of transformers, tags added.
        causal: whether the model is decoder-only.
        prefix, suffix: text around the dialogue.
        lengths: limits; what exceeds them is cut off the dialogue's end, never off the suffix.

    Raises:
        ConfigError: the limit leaves no room for the dialogue; the tokenizer has no end token.
    """

    def __init__(self, tokenizer: Any, *, causal: bool, prefix: str, suffix: str | None, lengths: Lengths) -> None:
        self.tokenizer, self.causal, self.lengths = tokenizer, causal, lengths
        self._prefix = prefix
        self._end = tokenizer.eos_token_id
        if self._end is None:
            raise ConfigError("the tokenizer has no end token (eos_token): a model trained with it would never stop")
        head, tail = _around(tokenizer)
        target_head, target_tail = _around(tokenizer, target=True)
        if causal:
            text = SUFFIX if suffix is None else suffix
            after = tokenizer(text, add_special_tokens=False)["input_ids"]
            self._head, self._tail = head, [*after]
            self._target_head, self._target_tail = [], [self._end]
        else:
            after = tokenizer(suffix, add_special_tokens=False)["input_ids"] if suffix else []
            self._head, self._tail = head, [*after, *tail]
            self._target_head, self._target_tail = target_head, target_tail
        room = lengths.source - len(self._head) - len(self._tail)
        if room < len(tokenizer(prefix, add_special_tokens=False)["input_ids"]) + 1:
            raise ConfigError(
                f"input.encoder_length {lengths.source} leaves no room for the dialogue beside prefix and suffix"
            )
        self._room = room
        self._target_room = lengths.target - len(self._target_head) - len(self._target_tail)

    def rows(self, rows: Sequence[Dialogue]) -> list[Encoded]:
        """Return rows as ids; the first summary of each is the target."""
        if not rows:
            return []
        sources = self._plain([self._prefix + row.dialogue for row in rows])
        targets = self._plain([row.summaries[0] if row.summaries else "" for row in rows])
        return [
            Encoded(
                source=np.array([*self._head, *source[: self._room], *self._tail], dtype=np.int64),
                target=self._target(target) if row.summaries else np.empty(0, dtype=np.int64),
                whole_source=len(source) + len(self._head) + len(self._tail),
                whole_target=len(target) + len(self._target_head) + len(self._target_tail),
            )
            for row, source, target in zip(rows, sources, targets, strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids; tags stay, special tokens go."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.strip()

    def _plain(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def _target(self, ids: list[int]) -> np.ndarray:
        kept = ids[: max(self._target_room, 0)]
        return np.array([*self._target_head, *kept, *self._target_tail], dtype=np.int64)


def _around(tokenizer: Any, *, target: bool = False) -> tuple[list[int], list[int]]:
    """Return the special ids a tokenizer puts before and after a text, with the end added where it forgets it."""
    text = "a"
    plain: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole: list[int] = (tokenizer(text_target=text) if target else tokenizer(text))["input_ids"]
    size = len(plain)
    place = next((at for at in range(len(whole) - size + 1) if whole[at : at + size] == plain), 0)
    head, tail = whole[:place], whole[place + size :]
    if tokenizer.eos_token_id in tail:
        return head, tail
    bos = tokenizer.bos_token_id
    # Nothing at all is added: the convention of BART, <s> text </s>, where there is a beginning.
    return (head or ([bos] if bos is not None else [])), [*tail, tokenizer.eos_token_id]
