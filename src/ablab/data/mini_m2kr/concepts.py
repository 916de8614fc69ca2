"""What the questions are about: the concepts of the bundled emoji, divided so that none is both learnt and asked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ablab import bundled
from ablab.contract.failure import ConfigError
from ablab.contract.seeds import stream_seed
from ablab.data.documents import corrupt
from ablab.data.readers.opening import read_lines

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
#: Words by which drawings of one thing differ in who does it, not in what it is.
_WHO = re.compile(r"\b(men|man|women|woman|people|person|boy|girl|male|female)s?\b|\bfacing right\b|[^\w ]")


@dataclass(frozen=True, kw_only=True)
class Concept:
    """A thing with its drawings.

    Args:
        code: code points of the emoji; its drawings are `<code>.png` of each vendor.
        name, name_ko: what it is called.
        tags, tags_ko: keywords.
        group, group_ko, subgroup: what it belongs to.
        lemma, gloss: word of the dictionary that the name holds, and its definition; None where it has none.
    """

    code: str
    name: str
    name_ko: str
    tags: tuple[str, ...]
    tags_ko: tuple[str, ...]
    group: str
    group_ko: str
    subgroup: str
    lemma: str | None
    gloss: str | None


def bundled_concepts() -> list[Concept]:
    """Return the concepts that ship with the package, in the order of the file."""
    return list(read_concepts(bundled.path("emoji") / "concepts.jsonl.xz"))


def read_concepts(path: str | os.PathLike[str]) -> Iterator[Concept]:
    """Yield the concepts of a JSONL file with one object a line.

    Raises:
        DataError: the file is missing, or a line is no concept.
    """
    for row, line in read_lines(Path(path)):
        try:
            yield _concept(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            corrupt(path, row, f"not a concept ({type(error).__name__}: {error})", "install ablab again")


def _concept(raw: dict[str, Any]) -> Concept:
    return Concept(
        code=str(raw["code"]),
        name=str(raw["name"]),
        name_ko=str(raw["name_ko"]),
        tags=tuple(map(str, raw["tags"] or ())),
        tags_ko=tuple(map(str, raw["tags_ko"] or ())),
        group=str(raw["group"]).replace("-", " and "),
        group_ko=str(raw["group_ko"]),
        subgroup=str(raw["subgroup"]).replace("-", " "),
        lemma=None if raw.get("lemma") is None else str(raw["lemma"]),
        gloss=None if raw.get("gloss") is None else str(raw["gloss"]),
    )


def family(concept: Concept) -> str:
    """Return what near-duplicates share: the name without who does it ("man running", "woman running": "running").

    A name that is nothing but that is its own family.
    """
    rest = " ".join(_WHO.sub(" ", concept.name.lower()).split())
    return rest or concept.name


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
        place = stream_seed(seed, f"split/{family(concept)}") / 2**63
        found[concept.code] = "test" if place < test else "val" if place < test + validation else "train"
    return found
