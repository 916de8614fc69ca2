"""Which checkpoints of a run stay: two that can be resumed from, the best by a metric, and those kept for good.

`checkpoints/index.json` says which is which: {"last": name, "best": [{"name", "value", "step"}, best first],
"keep": [names]}. It is derived from the state inside the newest valid checkpoint, so losing it loses nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ablab.contract.failure import DataError
from ablab.store.files import read_json, temporary_name, write_json
from ablab.store.manifest import NAME as MANIFEST
from ablab.training.checkpoint import OPTIMIZER, damage, name_of, newest_first

INDEX = "index.json"


@dataclass(kw_only=True)
class Ranked:
    """A checkpoint and the value that ranks it."""

    name: str
    value: float
    step: int


@dataclass(kw_only=True)
class Index:
    """Which checkpoints a run has and why."""

    last: str | None = None
    best: list[Ranked] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)

    def rank(self, step: int, value: float, *, mode: Literal["min", "max"], count: int) -> bool:
        """Enter a validation into the best `count`; return whether it got in. An equal value comes after."""
        sign = 1.0 if mode == "min" else -1.0
        name = name_of(step)
        others = [entry for entry in self.best if entry.name != name]
        entry = Ranked(name=name, value=value, step=step)
        self.best = sorted([*others, entry], key=lambda item: (sign * item.value, item.step))[:count]
        return entry in self.best

    def tags(self, name: str) -> list[str]:
        """Return why a checkpoint is kept."""
        found = ["last"] if name == self.last else []
        found += ["best"] if any(entry.name == name for entry in self.best) else []
        return found + (["keep"] if name in self.keep else [])

    def to_json(self) -> dict[str, Any]:
        """Return the content of index.json."""
        return {"last": self.last, "best": [asdict(entry) for entry in self.best], "keep": self.keep}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Index:
        """Read the content of index.json."""
        best = [Ranked(**entry) for entry in content.get("best", [])]
        return cls(last=content.get("last"), best=best, keep=list(content.get("keep", [])))

    def without_missing(self, checkpoints: Path) -> Index:
        """Return the index restricted to checkpoints that are there."""
        there = {folder.name for folder in newest_first(checkpoints)}
        return Index(
            last=self.last if self.last in there else None,
            best=[entry for entry in self.best if entry.name in there],
            keep=[name for name in self.keep if name in there],
        )


def read_index(checkpoints: Path) -> Index:
    """Return the index of a run's checkpoints; an empty one when there is none."""
    try:
        return Index.from_json(read_json(checkpoints / INDEX))
    except FileNotFoundError:
        return Index()


def write_index(checkpoints: Path, index: Index, *, sync: bool = True) -> None:
    """Write index.json; unsynced while the run goes on, since a resume writes it anew."""
    write_json(checkpoints / INDEX, {"format": 1, **index.to_json()}, sync=sync)


def prune(checkpoints: Path, index: Index, *, spare: int = 1, discard: Iterable[str] = ()) -> None:
    """Remove checkpoints that nothing keeps, and the optimizer state of those kept for their weights only.

    Args:
        checkpoints: the folder.
        index: what stays.
        spare: resumable checkpoints that stay beside the last one, in case it is damaged; 0 when the run is done.
        discard: names that must not count as spare, because they are damaged.
    """
    discard = set(discard)
    resumable = 0
    for folder in newest_first(checkpoints):
        can_resume = folder.name not in discard and (folder / OPTIMIZER).is_file()
        if can_resume and resumable < 1 + spare:
            resumable += 1
        elif index.tags(folder.name):
            strip(folder)
        else:
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a checkpoint: renamed first, so that it is never seen half removed."""
    away = temporary_name(folder)
    folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def strip(folder: Path) -> None:
    """Drop the optimizer's state of a checkpoint; it stays valid at every moment."""
    path = folder / OPTIMIZER
    if not path.is_file():
        return
    manifest = read_json(folder / MANIFEST)
    manifest["files"].pop(OPTIMIZER, None)
    write_json(folder / MANIFEST, manifest)
    path.unlink()


def find(checkpoints: Path, which: Literal["last", "best"]) -> Path:
    """Return the folder of a finished run's last or best checkpoint.

    Raises:
        DataError: there is none, or it is damaged.
    """
    index = read_index(checkpoints)
    name = index.last if which == "last" else (index.best[0].name if index.best else None)
    if name is None:
        raise DataError(f"{checkpoints}: holds no {which} checkpoint", file=str(checkpoints))
    problems = damage(checkpoints / name)
    if problems:
        raise DataError(f"checkpoint {checkpoints / name} is damaged: {problems[0]}", file=str(checkpoints / name))
    return checkpoints / name
