"""Read the events of many runs: each once, curves thinned at once, on several processes where there is much to read.

What a report needs of a run's events is small (curves, checkpoints, named time); the events themselves are not kept.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablab.analysis.curves import curves_of
from ablab.analysis.results import Curve
from ablab.store.events import read_attempt_events, read_events
from ablab.store.layout import RunFolder

#: Bytes of events beyond which other processes help, and how many at most.
MUCH, PROCESSES = 48_000_000, 8


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What the events of one run tell.

    Args:
        curves: by name, thinned.
        checkpoints: events of checkpoints that were written.
        utilisation: mean of the GPU's (0 to 1); None where nobody measured it.
        time: seconds by name, all attempts summed.
        problems: lines that could not be read.
    """

    curves: Mapping[str, Curve] = field(default_factory=dict)
    checkpoints: tuple[Mapping[str, Any], ...] = ()
    utilisation: float | None = None
    time: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def read_traces(folder: RunFolder) -> Traces:
    """Return what the events of a run tell; nothing where there are none."""
    problems: list[str] = []
    numbers = folder.attempts()
    if len(numbers) == 1:
        # Nothing can be superseded.
        events = read_attempt_events(folder.attempt(numbers[0]).events, problems=problems)
        for event in events:
            if event.get("e") != "step":
                event["attempt"] = numbers[0]
    else:
        events = read_events(folder, problems=problems)
    steps = [event for event in events if event.get("e") == "step"]
    others: list[Mapping[str, Any]] = [event for event in events if event.get("e") != "step"]
    used = [event["gpu_utilisation"] for event in others if "gpu_utilisation" in event]
    return Traces(
        curves=curves_of(steps, others),
        checkpoints=tuple(event for event in others if event.get("e") == "checkpoint"),
        utilisation=sum(used) / len(used) if used else None,
        time=_time(others),
        problems=tuple(problems),
    )


def _time(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the last totals of each attempt, summed."""
    by_attempt = {event.get("attempt", 1): event.get("totals") or {} for event in events if event.get("e") == "time"}
    found: dict[str, float] = {}
    for totals in by_attempt.values():
        for name, seconds in totals.items():
            found[name] = found.get(name, 0.0) + seconds
    return found


def read_all(folders: Mapping[str, RunFolder]) -> dict[str, Traces]:
    """Return the traces of runs by key; helpers are forked only where there is much to read and one thread."""
    sizes = {key: _bytes(folder) for key, folder in folders.items()}
    helpers = min(PROCESSES, os.cpu_count() or 1, len(folders))
    alone = threading.active_count() == 1 and hasattr(os, "fork")
    if helpers < 2 or sum(sizes.values()) < MUCH or not alone:
        return {key: read_traces(folder) for key, folder in folders.items()}
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    paths = {key: str(folder.path) for key, folder in folders.items()}
    order = sorted(paths, key=sizes.__getitem__, reverse=True)
    context = multiprocessing.get_context("fork")
    # Millions of small objects live for moments and hold no cycles.
    with ProcessPoolExecutor(helpers, mp_context=context, initializer=gc.disable) as pool:
        found = dict(zip(order, pool.map(_read, [paths[key] for key in order], chunksize=4), strict=True))
    return {key: found[key] for key in folders}


def _read(path: str) -> Traces:
    return read_traces(RunFolder(path))


def _bytes(folder: RunFolder) -> int:
    """Return the size of a run's event files."""
    total = 0
    for number in folder.attempts():
        try:
            total += Path(folder.attempt(number).events).stat().st_size
        except OSError:
            continue
    return total
