"""GPT-2's split of text into words, as a standard-library pattern that is exact wherever it is used.

GPT-2's pattern is

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

and needs Unicode classes that `re` lacks, so they are spelt out here from `unicodedata`. Libraries disagree on
characters that newer Unicode versions added, therefore only characters that Unicode 3.2 (2002) knew with the same
class as today count as known here; text with others goes to the tokenizer library.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

#: Unicode's White_Space, which `\\s` of Python is not (it adds U+001C to U+001F).
_SPACES = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
#: The last point looked at; what lies beyond (tags, private use) counts as unknown.
_LAST = 0x2FFFF
#: A place where no word can span: a line end between two visible ASCII characters.
_CUT = re.compile(r"(?<=[!-~]\n)(?=[!-~])")


@dataclass(frozen=True, slots=True)
class Pretokens:
    """The compiled patterns: words of known text, and the first character that is not known."""

    words: re.Pattern[str]
    unknown: re.Pattern[str]

    def known(self, text: str) -> bool:
        """Return whether `words` is exact for `text`."""
        return text.isascii() or self.unknown.search(text) is None


@functools.cache
def gpt2_pretokens() -> Pretokens:
    """Return GPT-2's patterns; they take a tenth of a second to build, once a process."""
    letters: list[tuple[int, int]] = []
    numbers: list[tuple[int, int]] = []
    unknown: list[tuple[int, int]] = []
    then = unicodedata.ucd_3_2_0.category
    for point in range(_LAST + 1):
        character = chr(point)
        now = unicodedata.category(character)
        before = then(character)
        if before == "Cn" or before[0] != now[0]:
            _extend(unknown, point)
        elif now[0] == "L":
            _extend(letters, point)
        elif now[0] == "N":
            _extend(numbers, point)
    unknown.append((_LAST + 1, sys.maxunicode))
    letter, number = _ranges(letters), _ranges(numbers)
    words = (
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?[{letter}]+| ?[{number}]+| ?[^{_SPACES}{letter}{number}]+"
        rf"|[{_SPACES}]+(?![^{_SPACES}])|[{_SPACES}]+"
    )
    return Pretokens(re.compile(words), re.compile(f"[{_ranges(unknown)}]"))


def pieces(text: str, size: int) -> Iterator[str]:
    """Yield parts of `text` of about `size` characters that are cut where tokens cannot span; joined they are `text`.

    A text without such places stays whole.
    """
    start = 0
    while len(text) - start > size:
        cut = _CUT.search(text, start + max(size, 1))
        if cut is None:
            break
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def _extend(ranges: list[tuple[int, int]], point: int) -> None:
    if ranges and ranges[-1][1] == point - 1:
        ranges[-1] = (ranges[-1][0], point)
    else:
        ranges.append((point, point))


def _ranges(ranges: list[tuple[int, int]]) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
