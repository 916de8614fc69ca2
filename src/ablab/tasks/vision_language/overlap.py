"""Pictures and questions of benchmarks that the training sets hold: what a model has seen is no test of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablab.data.conversations import IMAGE
from ablab.tasks.vision_language.benchmarks.protocol import Picture, Question
from ablab.tasks.vision_language.sets import RowSet


@dataclass(kw_only=True)
class Seen:
    """What an evaluation asks: digests of pictures by their size in bytes, and (digest, question, answer)."""

    pictures: dict[int, dict[str, set[str]]] = field(default_factory=dict)
    asked: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def add(self, benchmark: str, questions: Iterable[Question]) -> None:
        """Take in the questions of a benchmark."""
        for question in questions:
            for picture in question.images:
                data = content(picture)
                digest = hashlib.sha256(data).hexdigest()
                self.pictures.setdefault(len(data), {}).setdefault(digest, set()).add(benchmark)
                self.asked.setdefault((digest, plain(question.question or question.prompt)), set()).add(benchmark)


def content(picture: Picture) -> bytes:
    """Return the encoded bytes of a picture."""
    if picture.data is not None:
        return picture.data
    if picture.source is not None:
        return picture.source.read(picture.name)
    return b""


def plain(text: str) -> str:
    """Return the first line of a question, without case, punctuation at its end and the image's place."""
    lines = [line.strip() for line in text.replace(IMAGE, "").strip().split("\n") if line.strip()]
    return lines[0].rstrip(".?! ").lower() if lines else ""


def overlaps(seen: Seen, sets: Sequence[RowSet]) -> Mapping[str, int]:
    """Return facts overlap.images.<benchmark> and overlap.questions.<benchmark>: how many the training sets hold.

    Only training pictures of a size that a benchmark's picture has are read and compared.
    """
    images: dict[str, set[str]] = {}
    questions: dict[str, set[tuple[str, str]]] = {}
    for rows in sets:
        known = _same(seen, rows)
        for digest in known.values():
            for benchmark in _benchmarks(seen, digest):
                images.setdefault(benchmark, set()).add(digest)
        if known:
            for digest, asked in _asked(rows, known):
                for benchmark in seen.asked.get((digest, asked), ()):
                    questions.setdefault(benchmark, set()).add((digest, asked))
    return {f"overlap.images.{name}": len(found) for name, found in images.items()} | {
        f"overlap.questions.{name}": len(found) for name, found in questions.items()
    }


def _benchmarks(seen: Seen, digest: str) -> set[str]:
    return {name for by_digest in seen.pictures.values() for name in by_digest.get(digest, ())}


def _same(seen: Seen, rows: RowSet) -> dict[str, str]:
    """Return the digests, by name, of a set's pictures that a benchmark has too."""
    if not rows.images.any():
        return {}
    sizes = {name: size for name, size in rows.source.sizes() if size in seen.pictures}
    # A folder may hold more than the set names: the pictures of the benchmark itself, for one.
    named = {name for number in range(len(rows)) for name in _names(rows.raw(number))} if sizes else set()
    found = {}
    for name in sizes.keys() & named:
        digest = hashlib.sha256(rows.source.read(name)).hexdigest()
        if digest in seen.pictures[sizes[name]]:
            found[name] = digest
    return found


def _asked(rows: RowSet, known: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Yield (digest of the picture, question) of the rows about known pictures."""
    for number in range(len(rows)):
        raw = rows.raw(number)
        for name in _names(raw):
            if name in known:
                for turn in raw["conversations"]:
                    yield known[name], plain(str(turn.get("value", "")))


def _names(raw: Mapping[str, Any]) -> list[str]:
    names = raw.get("image") or raw.get("images") or ()
    return [names] if isinstance(names, str) else list(names)


def training_sets(orders: Iterable[Path]) -> list[str]:
    """Return the names of all sets that the phases in these run folders trained on."""
    found: dict[str, None] = {}
    for folder in orders:
        order = json.loads((folder / "order.json").read_text(encoding="utf-8"))
        found |= dict.fromkeys(order["parameters"].get("mixture", {}))
    return list(found)
