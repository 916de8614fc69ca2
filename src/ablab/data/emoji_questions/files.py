"""Writes the whole question set: pictures in one tar file, sets in LLaVA's format, benchmarks in their own."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablab.data.emoji_questions.benchmarks import WRITERS, Writer
from ablab.data.emoji_questions.captions import texts
from ablab.data.emoji_questions.rows import Row, Rows
from ablab.data.emoji_questions.scenes import Scene, draw
from ablab.data.emoji_questions.things import Pictures, Things

IMAGES = "images.tar"
#: Sets that are written, and of which split their pictures are.
SETS = ("captions", "captions-share", "instruct", "instruct-share", "texts", "val")
BENCHMARKS = tuple(WRITERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much is written.

    Args:
        captions, instruct: rows of the training sets.
        val: rows of the validation set.
        test: questions of each benchmark.
        korean: share of Korean rows in training.
        things: share of all things that are used.
    """

    captions: int = 3000
    instruct: int = 4000
    val: int = 64
    test: int = 200
    korean: float = 0.25
    things: float = 1.0


def write_emoji_questions(
    folder: Path, *, seed: int, sizes: Sizes, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Write the question set into an empty folder and return what it holds.

    Args:
        folder: gets <set>.json, images.tar, benchmarks/<name>/.
        seed: of the division and of all draws.
        sizes: how much.
        progress: called with steps done and all steps; may raise to stop.
    """
    folder.mkdir(parents=True, exist_ok=True)
    things = Things(seed=seed, share=sizes.things)
    train = Rows(things, "train", seed=seed, korean=sizes.korean)
    val = Rows(things, "val", seed=seed, korean=sizes.korean)
    made: dict[str, Callable[[], Iterator[Row]]] = {
        "captions": lambda: train.captions(sizes.captions, long=False),
        "captions-share": lambda: train.captions(sizes.captions, long=True),
        "instruct": lambda: train.conversations(sizes.instruct, share=False),
        "instruct-share": lambda: train.conversations(sizes.instruct, share=True),
        "texts": lambda: (Row(content, None) for content in texts(things)),
        "val": lambda: val.conversations(sizes.val, share=False),
    }
    total = len(made) + len(WRITERS)
    with tarfile.open(folder / IMAGES, "w") as archive:
        pictures = _Pictures(archive)
        for step, (name, rows) in enumerate(made.items()):
            progress(step, total)
            with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
                for row in rows():
                    file.write(json.dumps(row.content, ensure_ascii=False) + "\n")
                    if row.scene is not None:
                        pictures.add(row.content["image"], row.scene)
    writer = Writer(folder / "benchmarks", things, split="test", count=sizes.test, seed=seed)
    for step, (_, write) in enumerate(WRITERS.items(), start=len(made)):
        progress(step, total)
        write(writer)
    return {f"things.{split}": len(things.of(split)) for split in ("train", "val", "test")} | {
        "categories": len(things.categories),
        "drawings.withheld": len(things.withheld()),
    }


class _Pictures:
    """Adds each picture to an archive once; times and owners are left out, so that equal pictures are equal files."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive, self._drawn, self._known = archive, Pictures(), set[str]()

    def add(self, name: str, scene: Scene) -> None:
        if name in self._known:
            return
        self._known.add(name)
        encoded = io.BytesIO()
        draw(scene, self._drawn).save(encoded, "PNG", compress_level=1)
        member = tarfile.TarInfo(name)
        member.size = encoded.tell()
        encoded.seek(0)
        self._archive.addfile(member, encoded)
