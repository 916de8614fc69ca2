"""The bundled set `emoji`: things with two drawings each, names in English and Korean, tags, groups and glosses.

What is asked about the things (questions, retrieval pairs, classes) is the caller's.
"""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ablab import bundled

if TYPE_CHECKING:
    from PIL.Image import Image

Vendor = Literal["google", "twitter"]
VENDORS: tuple[Vendor, ...] = ("google", "twitter")

#: Width and height of every drawing, in pixels.
SIDE = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """One thing that both vendors draw.

    Args:
        code: code points in hexadecimal, unique; the drawing is `<code>.png` of either vendor.
        name: English name, unique.
        name_ko: Korean name, not always unique.
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


def drawings(vendor: Vendor, codes: Iterable[str]) -> dict[str, Image]:
    """Return one vendor's drawings of these things by code, RGB of 48 x 48 pixels on white."""
    from PIL import Image as images

    with tarfile.open(bundled.path("emoji") / f"{vendor}.tar") as archive:
        return {code: images.open(io.BytesIO(_member(archive, code))).convert("RGB") for code in codes}


def _member(archive: tarfile.TarFile, code: str) -> bytes:
    file = archive.extractfile(f"{code}.png")
    assert file is not None
    return file.read()
