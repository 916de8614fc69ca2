"""The bundled set `emoji`: things with two drawings each, names in English and Korean, tags, groups and glosses.

`divide` keeps apart what is learnt and what is asked. What is asked about the things (questions, retrieval pairs,
classes) is the caller's.
"""

from __future__ import annotations

import io
import json
import lzma
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ablab import bundled
from ablab.contract.failure import ConfigError
from ablab.contract.seeds import stream_seed
from ablab.data.sources import Split

if TYPE_CHECKING:
    from PIL.Image import Image

Vendor = Literal["google", "twitter"]
VENDORS: tuple[Vendor, ...] = ("google", "twitter")

#: Width and height of every drawing, in pixels.
SIDE = 48
#: Words by which drawings of one thing differ in who does it, not in what it is.
_WHO = re.compile(r"\b(men|man|women|woman|people|person|boy|girl|male|female)s?\b|\bfacing right\b|[^\w ]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """One thing that both vendors draw.

    Args:
        code: code points in hexadecimal, unique; the drawing is `<code>.png` of either vendor.
        name: English name, unique.
        name_ko: Korean name, not always unique.
        tags, tags_ko: keywords.
        group: one of eight (animals-nature, food-drink, ...); subgroup is finer (animal-mammal).
        lemma: the noun of the English name that `gloss` defines; None where no gloss fits.
        gloss: its definition in WordNet 3.0, by the sense that shares most words with the tags.
    """

    code: str
    name: str
    name_ko: str
    tags: tuple[str, ...]
    tags_ko: tuple[str, ...]
    group: str
    group_ko: str
    subgroup: str
    subgroup_ko: str
    lemma: str | None
    gloss: str | None

    @property
    def group_words(self) -> str:
        """Its group as it is read: animals and nature."""
        return self.group.replace("-", " and ")

    @property
    def subgroup_words(self) -> str:
        """Its subgroup as it is read: animal mammal."""
        return self.subgroup.replace("-", " ")

    @property
    def family(self) -> str:
        """What near-duplicates share: the name without who does it ("man running", "woman running": "running").

        A name that is nothing but that is its own family.
        """
        rest = " ".join(_WHO.sub(" ", self.name.lower()).split())
        return rest or self.name


def concepts(groups: Iterable[str] | None = None) -> tuple[Concept, ...]:
    """Return the things of some groups (all of them if None), in the order of the Unicode charts."""
    wanted = None if groups is None else frozenset(groups)
    with lzma.open(bundled.path("emoji") / "concepts.jsonl.xz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return tuple(
        Concept(**{**row, "tags": tuple(row["tags"]), "tags_ko": tuple(row["tags_ko"])})
        for row in rows
        if wanted is None or row["group"] in wanted
    )


def divide(
    concepts: Iterable[Concept], *, seed: int = 2357, validation: float = 0.1, test: float = 0.15
) -> dict[str, Split]:
    """Return the split of every concept, by code: families stay together, and none moves when others are added.

    Args:
        concepts: what is divided.
        seed: of the division; the same for every seed of a study.
        validation, test: expected shares of the families.

    Raises:
        ConfigError: nothing would be left to train on.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise ConfigError(f"validation {validation} and test {test} leave nothing to train on; lower them")
    found: dict[str, Split] = {}
    for concept in concepts:
        place = stream_seed(seed, f"split/{concept.family}") / 2**63
        found[concept.code] = "test" if place < test else "val" if place < test + validation else "train"
    return found


def drawings(vendor: Vendor, codes: Iterable[str]) -> dict[str, Image]:
    """Return one vendor's drawings of these things by code, RGB of 48 x 48 pixels on white."""
    from PIL import Image as images

    with tarfile.open(bundled.path("emoji") / f"{vendor}.tar") as archive:
        return {code: images.open(io.BytesIO(_member(archive, code))).convert("RGB") for code in codes}


def _member(archive: tarfile.TarFile, code: str) -> bytes:
    file = archive.extractfile(f"{code}.png")
    assert file is not None
    return file.read()
