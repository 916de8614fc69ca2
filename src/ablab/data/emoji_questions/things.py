"""What the questions are about: concepts of a category that has a name, their drawings, and who sees which."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ablab import bundled
from ablab.contract.seeds import stream_seed
from ablab.data.emoji import Concept, concepts, divide
from ablab.data.images import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

#: Categories by the emoji's subgroups: what one of them is called, in English and Korean.
_NAMED: dict[tuple[str, str], tuple[str, ...]] = {
    ("bird", "새"): ("animal bird",),
    ("bug", "벌레"): ("animal bug",),
    ("mammal", "포유류"): ("animal mammal",),
    ("fish", "물고기"): ("animal marine",),
    ("plant", "식물"): ("plant flower", "plant other"),
    ("fruit", "과일"): ("food fruit",),
    ("vegetable", "채소"): ("food vegetable",),
    ("meal", "식사"): ("food prepared", "food asian"),
    ("drink", "음료"): ("drink",),
    ("face", "얼굴"): (
        "face smiling", "face concerned", "face affection", "face neutral skeptical", "face unwell", "face sleepy",
        "face tongue", "face hand", "face negative",
    ),
    ("heart", "하트"): ("heart",),
    ("hand", "손"): (
        "hand fingers open", "hand fingers partial", "hand single finger", "hand fingers closed", "hands", "hand prop",
    ),
    ("person", "인물"): (
        "person role", "person sport", "person activity", "person gesture", "person", "person fantasy",
    ),
    ("vehicle", "차량"): ("transport ground",),
    ("ship", "선박"): ("transport water",),
    ("aircraft", "항공기"): ("transport air",),
    ("building", "건물"): ("place building", "place religious"),
    ("clock", "시계"): ("time",),
    ("weather", "날씨"): ("sky weather",),
    ("garment", "옷"): ("clothing",),
    ("tool", "도구"): ("tool",),
    ("instrument", "악기"): ("musical instrument",),
    ("sport", "스포츠"): ("sport",),
    ("arrow", "화살표"): ("arrow",),
    ("shape", "도형"): ("geometric",),
}  # fmt: skip
CATEGORIES: dict[str, tuple[str, str]] = {subgroup: name for name, found in _NAMED.items() for subgroup in found}
#: What a thing of a group is called.
KINDS: dict[str, tuple[str, str]] = {
    "smileys and emotion": ("feeling", "감정"),
    "people and body": ("person", "사람"),
    "animals and nature": ("nature", "자연"),
    "food and drink": ("food", "음식"),
    "travel and places": ("travel", "여행"),
    "activities": ("activity", "활동"),
    "objects": ("object", "사물"),
    "symbols": ("symbol", "기호"),
}
VENDORS = ("google", "twitter")
LANGUAGES = ("en", "ko")
#: Share of the things of training of which one drawing is kept for the test.
WITHHELD = 0.2


@dataclass(frozen=True, slots=True)
class Thing:
    """A concept in words.

    Args:
        code: of the concept; also of its drawings.
        name, category, kind: in English and Korean.
        words: what it is tagged with, for the tower's labels: kind, category, and words of its name and tags.
        gloss: what a dictionary says, or "".
        withheld: whether its second drawing is only in the test.
    """

    code: str
    name: tuple[str, str]
    category: tuple[str, str]
    kind: tuple[str, str]
    tags: tuple[str, ...]
    words: tuple[str, ...]
    gloss: str
    withheld: bool

    def says(self, what: str, language: str) -> str:
        """Return name, category or kind in a language."""
        words: tuple[str, str] = getattr(self, what)
        return words[LANGUAGES.index(language)]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A thing as one vendor draws it."""

    thing: Thing
    vendor: str


class Things:
    """Drawings by split. Concepts of validation and test are in no picture and no text of training.

    Args:
        seed: of the division.
        share: of the categories' concepts that are used at all, for smaller sets.
    """

    def __init__(self, *, seed: int, share: float = 1.0) -> None:
        asked = [c for c in concepts() if c.subgroup_words in CATEGORIES and c.group_words in KINDS]
        splits = divide(asked, seed=seed, validation=0.08, test=0.2)
        used = [c for c in asked if stream_seed(seed, f"split/used/{c.code}") / 2**63 < share]
        self._things: dict[str, list[Thing]] = {"train": [], "val": [], "test": []}
        for concept in used:
            self._things[splits[concept.code]].append(_thing(concept, seed, trains=splits[concept.code] == "train"))

    def of(self, split: str) -> list[Thing]:
        """Return the things of a split, in the order of the file."""
        return self._things[split]

    def drawings(self, split: str) -> list[Drawing]:
        """Return the drawings that pictures of a split are made of."""
        return [
            Drawing(thing, vendor)
            for thing in self._things[split]
            for vendor in VENDORS
            if not (thing.withheld and vendor == VENDORS[1])
        ]

    def withheld(self) -> list[Drawing]:
        """Return the drawings of things of training that no training picture has."""
        return [Drawing(thing, VENDORS[1]) for thing in self._things["train"] if thing.withheld]

    @cached_property
    def categories(self) -> list[tuple[str, str]]:
        """The categories that training has, the most frequent first."""
        counts: dict[tuple[str, str], int] = {}
        for thing in self._things["train"]:
            counts[thing.category] = counts.get(thing.category, 0) + 1
        return sorted(counts, key=lambda category: (-counts[category], category))

    @cached_property
    def siblings(self) -> dict[tuple[str, str], list[tuple[str, str]]]:
        """Other categories of the same kind, by category: what is mistaken for it most easily."""
        kinds: dict[tuple[str, str], tuple[str, str]] = {}
        for things in self._things.values():
            kinds |= {thing.category: thing.kind for thing in things}
        return {
            category: [other for other in self.categories if other != category and kinds[other] == kinds.get(category)]
            for category in kinds
        }


def _thing(concept: Concept, seed: int, *, trains: bool) -> Thing:
    category, kind = CATEGORIES[concept.subgroup_words], KINDS[concept.group_words]
    words = dict.fromkeys([kind[0], category[0], *concept.name.split(), *concept.tags])
    return Thing(
        code=concept.code,
        name=(concept.name, concept.name_ko),
        category=category,
        kind=kind,
        tags=concept.tags,
        words=tuple(words),
        gloss=concept.gloss or "",
        withheld=trains and stream_seed(seed, f"split/withheld/{concept.code}") / 2**63 < WITHHELD,
    )


class Pictures:
    """The drawings themselves, 48 x 48, decoded once."""

    def __init__(self) -> None:
        folder: Path = bundled.path("emoji")
        self._sources = {vendor: ImageSource(folder / f"{vendor}.tar") for vendor in VENDORS}
        self._known: dict[tuple[str, str], Image] = {}

    def of(self, drawing: Drawing) -> Image:
        """Return a drawing in RGB on white."""
        key = (drawing.vendor, drawing.thing.code)
        if key not in self._known:
            self._known[key] = self._sources[drawing.vendor].open(f"{drawing.thing.code}.png")
        return self._known[key]
