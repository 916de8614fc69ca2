"""Where each planned run stands in the store, with as few system calls as possible: plans hold 10^5 runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ablab.contract.kinds import is_select
from ablab.contract.state import State
from ablab.plan.graph import Plan, Run, RunStatus
from ablab.store.claims import is_alive, read_holder
from ablab.store.files import read_bytes
from ablab.store.layout import RunFolder, Store
from ablab.store.remake import lost_weights

#: States that mean what they say without a living worker.
_SETTLED: dict[str, RunStatus] = {"failed": "failed", "stopped": "stopped", "waiting": "waiting", "paused": "paused"}


def folders_by_key(store: Store | None) -> dict[str, str]:
    """Return the run folders there are: key to folder name."""
    if store is None:
        return {}
    try:
        names = os.listdir(store.root / "runs")  # noqa: PTH208 - names alone, 10^5 of them
    except FileNotFoundError:
        return {}
    return {name.rpartition("-")[2]: name for name in names if name[:1] != "."}


def choice_of(store: Store | None, name: str | None) -> Mapping[str, Any] | None:
    """Return what the select run in a folder chose (its fact "chosen"); None while it is not done."""
    if store is None or name is None:
        return None
    result = store.run(name).read_result()
    chosen = None if result is None else result.facts.get("chosen")
    return chosen if isinstance(chosen, Mapping) else None


def read_statuses(runs: Iterable[Run], store: Store | None, folders: Mapping[str, str]) -> None:
    """Set the status of every run that has a folder in the store, and the folder's name.

    Args:
        runs: runs of a plan.
        store: the store.
        folders: its run folders, name by key (`folders_by_key`).
    """
    if store is None or not folders:
        return
    root = f"{store.root}/runs/"
    for run in runs:
        name = folders.get(run.key)
        if name is not None:
            run.folder = name
            status, state = status_of(root + name)
            if status != "pending":
                run.status = status
            if status == "running" and state is not None:
                run.remaining = state.remaining


def find_lost_weights(plan: Plan, store: Store | None) -> None:
    """Make finished runs work to do again whose weights a run of the plan will read and would not find.

    Users come before what they read here, so that a chain of dropped weights is followed to its beginning.
    """
    if store is None:
        return
    seen: set[tuple[str, str]] = set()
    for user in reversed(plan.runs.values()):
        if user.status in ("done", "planned") or is_select(user.stage.spec):
            continue
        for given in user.inputs:
            run = plan.runs[given.key]
            if run.status != "done" or (run.key, given.checkpoint) in seen:
                continue
            seen.add((run.key, given.checkpoint))
            folder = store.run(run.name)
            lost = lost_weights(folder, given.checkpoint)
            if lost is not None:
                run.again = lost
                status, state = status_of(str(folder.remake.path))
                # A remake that is done only waits to be moved over, which the launch does.
                run.status = "pending" if status == "done" else status
                run.remaining = state.remaining if status == "running" and state is not None else None


def status_of(path: str) -> tuple[RunStatus, State | None]:
    """Return where the run in a folder stands, and its state where one was needed to tell.

    A result makes it done, except where its state says that it was stopped because of other runs. A state "running"
    is believed only while its claim is alive; otherwise the run was stopped, by whatever means, and will be resumed.
    """
    folder = RunFolder(path)
    done = folder.done
    if done and not _mentions_stopped(path):
        return "done", None
    state = folder.known_state()
    if state is not None and state.status == "stopped":
        return "stopped", state
    if done:
        return "done", state
    if _claimed(folder):
        return "running", state
    if state is None:
        return ("stopped" if folder.attempts() else "pending"), None
    return _SETTLED.get(state.status, "stopped"), state


def _mentions_stopped(path: str) -> bool:
    """Whether the state may say "stopped": a look at the bytes is enough for nearly every run."""
    try:
        return b'"stopped"' in read_bytes(f"{path}/state.json")
    except FileNotFoundError:
        return False


def _claimed(folder: RunFolder) -> bool:
    """Whether a living worker holds the run."""
    holder = read_holder(folder.claim_path)
    return holder is not None and is_alive(holder)
