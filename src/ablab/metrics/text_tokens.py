"""Text as the tokens that overlap metrics count: Korean morphemes, words, characters; speaker and PII tags stay whole.

A tokenizer is any function from a text to its tokens; those here also take many texts at once. `coverage` says how
much of a text a tokenizer drops: the usual ASCII tokenizer leaves of a Korean sentence nothing but its tags.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ablab.contract.failure import ConfigError

Tokenizer = Callable[[str], list[str]]
Name = Literal["korean", "words", "characters", "ascii"]

#: Speaker and PII tags: #Person1#, #PhoneNumber#.
TAG = re.compile(r"#\w+#")
_WORD = re.compile(r"#\w+#|\w+")
_CHARACTER = re.compile(r"#\w+#|\S")
_ASCII = re.compile(r"[a-z0-9]+")
#: Texts whose morphemes are kept.
_REMEMBERED = 50_000


def words(text: str) -> list[str]:
    """Return the words of a text, case folded; punctuation drops, tags stay as they are."""
    return [token if token[0] == "#" else token.casefold() for token in _WORD.findall(text)]


def characters(text: str) -> list[str]:
    """Return the characters of a text without white space, case folded; a tag is one token."""
    return [token if len(token) > 1 else token.casefold() for token in _CHARACTER.findall(text)]


def ascii_words(text: str) -> list[str]:
    """Return the runs of ASCII letters and digits, lower case: what rouge-score does unless told otherwise.

    For English only, and for telling what it does to other languages.
    """
    return _ASCII.findall(text.lower())


class KoreanMorphemes:
    """Morphemes by kiwipiepy, each in its dictionary form, tags protected from the analyser.

    Names of several words stay several tokens. Texts are analysed once: scores, lengths and coverage ask for the same
    ones again.

    Args:
        threads: threads of `batch`; the order's thread budget, not the machine's cores.
    """

    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads
        self._known: dict[str, list[str]] = {}

    def __call__(self, text: str) -> list[str]:
        """Return the morphemes of a text."""
        return self.batch([text])[0]

    def batch(self, texts: Iterable[str]) -> list[list[str]]:
        """Return the morphemes of many texts."""
        texts = list(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(new) > _REMEMBERED:
            self._known = {}
            new = list(dict.fromkeys(texts))
        for text, tokens in zip(new, self._kiwi.tokenize(new, pretokenized=_tags), strict=True):
            self._known[text] = [token.form for token in tokens]
        return [list(self._known[text]) for text in texts]

    @cached_property
    def _kiwi(self) -> Any:
        try:
            import kiwipiepy
        except ModuleNotFoundError as error:
            raise ConfigError(
                "the tokenizer korean needs kiwipiepy, which is not installed: pip install ablab[korean]"
            ) from error
        # The dictionary of names of several words takes longer to load than most test sets to score.
        return kiwipiepy.Kiwi(num_workers=self._threads, load_multi_dict=False)


def _tags(text: str) -> list[tuple[int, int, str]]:
    """Return the spans of tags, each to be one proper noun."""
    return [(*match.span(), "NNP") for match in TAG.finditer(text)]


def tokenizer_for(name: Name | str, *, threads: int = 1) -> Tokenizer:
    """Return a tokenizer by name: korean, words, characters or ascii.

    Raises:
        ConfigError: there is no such tokenizer.
    """
    known: dict[str, Tokenizer] = {
        "korean": KoreanMorphemes(threads=threads),
        "words": words,
        "characters": characters,
        "ascii": ascii_words,
    }
    if name not in known:
        raise ConfigError(f"no tokenizer {name!r}; there are {', '.join(known)}")
    return known[name]


def tokenize_all(texts: Sequence[str], tokenizer: Tokenizer) -> dict[str, list[str]]:
    """Return the tokens of each distinct text, by text; through `tokenizer.batch` where it has one."""
    distinct = list(dict.fromkeys(texts))
    batch = getattr(tokenizer, "batch", None)
    tokens = batch(distinct) if batch is not None else map(tokenizer, distinct)
    return dict(zip(distinct, tokens, strict=True))


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many letters and digits of texts, tags aside, a tokenizer keeps.

    Args:
        kept: letters and digits (Hangul in its parts) that are found in the tokens again.
        total: of the texts.
        example: the text that loses most, and its tokens.
    """

    kept: int
    total: int
    example: tuple[str, list[str]]

    @property
    def dropped(self) -> float:
        """Share of letters and digits that no token holds; 0 for texts without any."""
        return 1 - self.kept / self.total if self.total else 0.0


def coverage(texts: Sequence[str], tokenizer: Tokenizer) -> Coverage:
    """Return how much of texts a tokenizer keeps.

    Letters are compared as multisets in decomposed form, so that a morpheme analyser that writes 갔다 as 가, 았, 다
    has kept it.
    """
    kept = total = 0
    worst, example = -1, ("", list[str]())
    for text, tokens in tokenize_all(texts, tokenizer).items():
        wanted = _letters(TAG.sub(" ", text))
        found = wanted & _letters(" ".join(TAG.sub(" ", token) for token in tokens))
        kept, total = kept + found.total(), total + wanted.total()
        if (lost := wanted.total() - found.total()) > worst:
            worst, example = lost, (text, tokens)
    return Coverage(kept=kept, total=total, example=example)


def _letters(text: str) -> Counter[str]:
    return Counter(c for c in unicodedata.normalize("NFKD", text.casefold()) if c.isalnum())
