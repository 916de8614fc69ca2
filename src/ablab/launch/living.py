"""Launchers that are alive, and stopping them from another process or machine.

A living launcher holds the claim `launches/<id>/launcher.json`; its workers hold the claims of their runs. Who is on
this machine gets a signal; a launcher elsewhere finds a file named `stop` in its launch folder.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

from ablab.contract.failure import AblabError
from ablab.launch.crew import is_here, living_holder
from ablab.launch.processes import Watch
from ablab.store.claims import Holder, is_alive, read_holder
from ablab.store.files import CorruptFile, read_json, write_json
from ablab.store.layout import Store

CLAIM = "launcher.json"
STOP = "stop"


def living_launchers(store: Store, study: str | None = None) -> Iterator[tuple[Path, Holder]]:
    """Yield the launch folders whose launchers are alive, with who that is.

    Args:
        store: the store.
        study: name of the study; None takes all.
    """
    for folder in store.launches():
        holder = read_holder(folder / CLAIM)
        if holder is not None and is_alive(holder) and study in {None, _study_of(folder)}:
            yield folder, holder


def living_workers(store: Store, study: str | None = None) -> Iterator[tuple[str, Holder]]:
    """Yield the runs somebody works on, by name, with who that is."""
    for folder in store.runs():
        holder = living_holder(folder)
        if holder is None:
            continue
        order = folder.known_order()
        if study is None or (order is not None and order.study == study):
            yield folder.name, holder


def stop(store: Store, study: str | None = None, *, seconds: float = 90.0) -> list[str]:
    """Ask launchers and workers to checkpoint and stop, and wait for them.

    Args:
        store: the store.
        study: name of the study; None stops everything in the store.
        seconds: how long to wait.

    Returns:
        Names of the launches and runs that were going on and have stopped.

    Raises:
        AblabError: some are still there after the wait, or out of reach; the message names them.
    """
    deadline = time.monotonic() + seconds
    launchers = {folder.name: holder for folder, holder in living_launchers(store, study)}
    stopped = dict(living_workers(store, study))
    for name, holder in launchers.items():
        write_json(store.launch_folder(name) / STOP, {"format": 1, "time": time.time()})
        _terminate(holder)
    left = _wait_for(store, launchers, deadline)
    # A launcher stops its own workers; a second signal would end them without a checkpoint. Now for those without one.
    workers = {} if left else dict(living_workers(store, study))
    for holder in workers.values():
        _terminate(holder)
    left |= _wait_for(store, workers, deadline)
    if left:
        listed = ", ".join(f"{name} ({holder})" for name, holder in left.items())
        raise AblabError(f"still running after {seconds:.0f} s: {listed}; stop them on their machine", left=list(left))
    return list(launchers | stopped | workers)


def _wait_for(store: Store, waiting: dict[str, Holder], deadline: float) -> dict[str, Holder]:
    """Wait until launchers and workers have ended; return those that have not in time."""
    while True:
        waiting = {name: holder for name, holder in waiting.items() if _goes_on(store, name, holder)}
        if not waiting or time.monotonic() >= deadline:
            return waiting
        time.sleep(0.05)


def _goes_on(store: Store, name: str, holder: Holder) -> bool:
    if is_here(holder):
        return is_alive(holder)
    launch = store.launch_folder(name)
    found = read_holder(launch / CLAIM if launch.is_dir() else store.run(name).claim_path)
    return found is not None and found.token == holder.token and is_alive(found)


def _terminate(holder: Holder) -> None:
    if is_here(holder):
        watch = Watch(holder.pid, holder.start)
        watch.signal(signal.SIGTERM)
        watch.close()


def _study_of(folder: Path) -> str | None:
    try:
        content = read_json(folder / "launch.json")
    except (FileNotFoundError, CorruptFile):
        return None
    name = content.get("study") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None
