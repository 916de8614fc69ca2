"""Making weights again that a finished run had and that retention dropped: `runs/<name>/remake/`, a run folder inside.

A finished run is never changed. What is needed again is computed in a folder of its own, by the very order of the run,
with attempts and checkpoints like any other; once it is done, the checkpoints that are missing move over, and one line
in `remakes.jsonl` of the run says so. Which runs need it is the plan's to say.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, Literal

from ablab.contract.failure import AblabError
from ablab.store.files import append_line, sync_folder, temporary_name
from ablab.store.layout import RunFolder
from ablab.store.manifest import NAME as MANIFEST
from ablab.store.retention import dropped, read_index


def lost_weights(run: RunFolder, which: Literal["last", "best"]) -> str | None:
    """Return why the last or best checkpoint of a finished run is not there; None when it is, or never was.

    A shallow look, cheap enough for a plan; whoever loads the checkpoint checks its content.
    """
    try:
        index = read_index(run)
    except (AblabError, AttributeError, KeyError, TypeError):
        return None
    name = index.last if which == "last" else next(iter(index.best), None)
    if name is None or _valid(run.checkpoints / name):
        return None
    return "weights dropped" if name in dropped(run) else "weights gone"


def restore(run: RunFolder) -> None:
    """Move the checkpoints that a finished remake made to where they are missing; without one, nothing happens.

    Any number of processes may do so at once, and any of them may be killed in between: what was not moved by then is
    made again.
    """
    if not run.remake.done:
        return
    # Under a name of our own it is ours alone, and never seen half emptied.
    ours = RunFolder(temporary_name(run.remake.path))
    try:
        run.remake.path.rename(ours.path)
    except FileNotFoundError:
        return
    missing = [made for made in sorted(ours.checkpoints.glob("step-*")) if not _valid(run.checkpoints / made.name)]
    for made in missing:
        made.rename(run.checkpoints / made.name)
    sync_folder(run.checkpoints)
    equal = _equal(run, ours)
    row = {"time": time.time(), "attempts": len(ours.attempts()), "checkpoints": [made.name for made in missing]}
    append_line(run.path / "remakes.jsonl", {**row, "equal": equal}, sync=True)
    if not equal:
        run.append_issue(_differs())
    shutil.rmtree(ours.path, ignore_errors=True)


def _valid(checkpoint: Path) -> bool:
    return (checkpoint / MANIFEST).exists()


def _equal(run: RunFolder, remake: RunFolder) -> bool:
    """Whether the run came out as it did the first time."""
    before, again = run.read_result(), remake.read_result()
    return before is not None and again is not None and (before.metrics, before.best) == (again.metrics, again.best)


def _differs() -> dict[str, Any]:
    return {
        "kind": "numerics",
        "message": "weights that retention had dropped came out different when they were made again",
        "resolution": "the result stays the first one; what reads the weights from now on reads the new ones",
    }
