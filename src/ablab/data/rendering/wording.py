"""Words, sentences and numbers to write: from the bundled names, novels and glosses; Korean sentences by rule.

All draws take the caller's generator, so that a text is a function of its seed.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from ablab import bundled
from ablab.data.emoji import Concept, concepts
from ablab.data.rendering.fonts import common

Language = Literal["en", "ko"]
Item = TypeVar("Item")

#: Things that tables, receipts and sentences are about.
_GROUPS = ("animals-nature", "food-drink", "objects", "travel-places", "activities")
_LONGEST_NAME = 20
#: "eight-thirty" beside a number reads as one.
_TIMES = "time"
#: Sentences kept of the novels, and glosses kept, so that loading takes a moment only.
_SENTENCES, _GLOSSES = 4000, 4000
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_HANGUL, _FINALS = 0xAC00, 28
#: Digits whose Korean names end in a consonant: 영, 일, 삼, 육, 칠, 팔.
_CLOSED_DIGITS = frozenset("013678")

#: Korean sentences; {x:topic} is the word with the particle that its last letter asks for.
_KOREAN = (
    "{a:topic} {group}에 속합니다.",
    "{a:and} {b:topic} 서로 다릅니다.",
    "오늘은 {a:object} 보았습니다.",
    "{a:subject} 가장 많이 팔렸습니다.",
    "이 표에는 {a:and} {b:subject} 있습니다.",
    "{place}에서 {a:object} 찾을 수 있습니다.",
    "{n}개의 {a:subject} 창고에 남아 있습니다.",
    "다음 주부터 {a:topic} 판매하지 않습니다.",
    "{a:object} 주문하려면 {place}으로 오십시오.",
    "{year}년에는 {a:subject} {n}퍼센트 늘었습니다.",
    "관리자는 {a:and} {b:object} 함께 확인해야 합니다.",
    "{a:topic} 매우 인기가 있습니다.",
)
_PLACES_KO = ("서울", "부산", "대구", "인천", "광주", "대전", "울산", "수원", "제주", "강릉", "전주", "경주")
_PLACES_EN = ("London", "Bath", "Derby", "York", "Bristol", "Oxford", "Leeds", "Dover", "Kent", "Surrey", "Essex")
_PLACE = re.compile(r"\{(\w+)(?::(\w+))?\}")
_PARTICLES = {
    "topic": ("은", "는"),
    "subject": ("이", "가"),
    "object": ("을", "를"),
    "and": ("과", "와"),
    "called": ("이라는", "라는"),
}


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What there is to write, of letters that every font has."""

    things: tuple[Concept, ...]
    sentences: tuple[str, ...]
    glosses: tuple[str, ...]

    def word(self, language: Language, generator: np.random.Generator) -> str:
        """Return the name of a thing."""
        thing = choose(self.things, generator)
        return thing.name if language == "en" else thing.name_ko

    def words(self, language: Language, count: int, generator: np.random.Generator) -> tuple[str, ...]:
        """Return different names of things."""
        found: dict[str, None] = {}
        while len(found) < count:
            found[self.word(language, generator)] = None
        return tuple(found)

    def sentence(self, language: Language, generator: np.random.Generator, *, longest: int = 90) -> str:
        """Return a sentence of at most `longest` letters: of a novel, a definition, or Korean by rule."""
        for _ in range(50):
            text = self._sentence(language, generator)
            if len(text) <= longest:
                return text
        return self.word(language, generator)

    def _sentence(self, language: Language, generator: np.random.Generator) -> str:
        if language == "ko":
            return self._korean(generator)
        if generator.random() < 0.6:
            return choose(self.sentences, generator)
        return choose(self.glosses, generator)

    def _korean(self, generator: np.random.Generator) -> str:
        first, second = choose(self.things, generator), choose(self.things, generator)
        return filled(
            choose(_KOREAN, generator),
            a=first.name_ko,
            b=second.name_ko,
            group=first.group_ko,
            place=choose(_PLACES_KO, generator),
            n=generator.integers(2, 100),
            year=generator.integers(1990, 2026),
        )

    def place(self, language: Language, generator: np.random.Generator) -> str:
        """Return the name of a town."""
        return choose(_PLACES_EN if language == "en" else _PLACES_KO, generator)


def load_wording(fonts: Iterable[Path]) -> Wording:
    """Return what the bundled sets have to write, of letters that all of these fonts have."""
    known = common(fonts)
    named = [
        thing
        for thing in concepts(_GROUPS)
        if max(len(thing.name), len(thing.name_ko)) <= _LONGEST_NAME and thing.subgroup != _TIMES
    ]
    return Wording(
        things=tuple(thing for thing in named if known.issuperset(thing.name + thing.name_ko + thing.group_ko)),
        sentences=tuple(text for text in _austen() if known.issuperset(text)),
        glosses=tuple(text for text in _definitions() if known.issuperset(text)),
    )


def _austen() -> list[str]:
    with lzma.open(bundled.path("austen") / "persuasion.txt.xz", "rt", encoding="utf-8") as file:
        text = " ".join(file.read().split())
    plain = text.translate(str.maketrans("“”‘’—", "\"\"''-", "_"))
    return [one for one in _SENTENCE.split(plain) if 12 <= len(one) <= 160 and one[0].isupper()][:_SENTENCES]


def _definitions() -> list[str]:
    found: list[str] = []
    with lzma.open(bundled.path("wordnet") / "glosses.txt.xz", "rt", encoding="utf-8") as file:
        for line in file:
            text = line.strip().partition(": ")[2].split(";")[0].strip()
            if 12 <= len(text) <= 100:
                found.append(f"{text[0].upper()}{text[1:]}.")
            if len(found) == _GLOSSES:
                break
    return found


def filled(template: str, **values: object) -> str:
    """Return a template with its places filled: {x}, or {x:topic} for a Korean word with the particle it asks for."""

    def place(match: re.Match[str]) -> str:
        text = str(values[match[1]])
        return with_particle(text, match[2]) if match[2] else text

    return _PLACE.sub(place, template)


def with_particle(word: str, role: str) -> str:
    """Return a Korean word with its particle: topic, subject, object, and; by whether it ends in a consonant."""
    closed, opened = _PARTICLES[role]
    return word + (closed if ends_in_consonant(word) else opened)


def ends_in_consonant(word: str) -> bool:
    """Tell whether a word ends in a consonant as Korean reads it: by its last syllable, or by its last digit."""
    last = word[-1:]
    if last.isdecimal():
        return last in _CLOSED_DIGITS
    code = ord(last) - _HANGUL if last else -1
    return 0 <= code < 11172 and code % _FINALS != 0


def choose(items: Sequence[Item], generator: np.random.Generator) -> Item:
    """Return one of several, each as likely."""
    return items[int(generator.integers(len(items)))]


def date(language: Language, generator: np.random.Generator) -> str:
    """Return a date as it is written in the language."""
    year, month, day = (int(generator.integers(*span)) for span in ((1990, 2031), (1, 13), (1, 29)))
    if language == "ko":
        return choose(
            (f"{year}년 {month}월 {day}일", f"{year}. {month}. {day}.", f"{year}-{month:02d}-{day:02d}"), generator
        )
    names = "January February March April May June July August September October November December".split()  # noqa: SIM905
    return choose(
        (f"{day} {names[month - 1]} {year}", f"{year}-{month:02d}-{day:02d}", f"{day:02d}/{month:02d}/{year}"),
        generator,
    )


def amount(language: Language, generator: np.random.Generator, *, most: int = 100_000) -> tuple[int, str]:
    """Return an amount of money in its smallest unit, and as it is written."""
    if language == "ko":
        value = int(generator.integers(5, most // 10)) * 10
        return value, money("ko", value)
    value = int(generator.integers(50, most))
    return value, money("en", value)


def money(language: Language, value: int) -> str:
    """Return an amount as it is written: 12,500원, $123.45."""
    return f"{value:,}원" if language == "ko" else f"${value // 100:,}.{value % 100:02d}"


def code(generator: np.random.Generator) -> str:
    """Return a number such as stands on forms: two letters and five digits."""
    letters = "ABCDEFGHJKLMNPRSTUVWXYZ"
    return f"{choose(letters, generator)}{choose(letters, generator)}-{int(generator.integers(10_000, 100_000))}"


def telephone(generator: np.random.Generator) -> str:
    """Return a telephone number of no one."""
    return f"0{int(generator.integers(2, 7))}-555-{int(generator.integers(0, 10_000)):04d}"
