"""Frozen sources (`sources/<digest>/`) that nothing leads back to any more.

A source stays as long as a run's order names it (a number of the report leads back to the code that computed it), a
living launch works from it, or it is that of the last launch of a study. What a launch was stays in its folder, with
the digest and the git state.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablab.contract.failure import AblabError
from ablab.store.claims import is_alive, read_holder
from ablab.store.files import TEMPORARY, read_json
from ablab.store.layout import Store
from ablab.store.retention import REMAINS, Removal, folder_size


def old_sources(store: Store) -> list[Removal]:
    """Return the sources that may go; one that was frozen, or frozen again, within the last hour stays."""
    root = store.root / "sources"
    try:
        there = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(TEMPORARY)]
    except FileNotFoundError:
        return []
    old = [path for path in sorted(there) if time.time() - path.stat().st_mtime > REMAINS]
    if not old:
        return []
    kept = {*_of_runs(store), *_of_launches(store)}
    return [_removal(path) for path in old if path.name not in kept]


def _removal(path: Path) -> Removal:
    size, files = folder_size(path)
    reason = "frozen for launches of which no run is left"
    return Removal(path=path, run=None, what="source", reason=reason, bytes=size, files=files)


def _of_runs(store: Store) -> Iterator[str]:
    """Yield the digests that the orders of the store's runs name."""
    for run in store.runs():
        for folder in (run, run.remake):
            source = _content(folder.order_path).get("source")
            if isinstance(source, str):
                yield Path(source).name


def _of_launches(store: Store) -> Iterator[str]:
    """Yield the digests of living launches, and of the last one of each study and profile."""
    last: dict[tuple[str, str], str] = {}
    for folder in store.launches():
        launch = _content(folder / "launch.json")
        source = launch.get("source")
        digest = source.get("digest") if isinstance(source, dict) else None
        if isinstance(digest, str):
            last[str(launch.get("study")), str(launch.get("profile"))] = digest
            holder = read_holder(folder / "launcher.json")
            if holder is not None and is_alive(holder):
                yield digest
    yield from last.values()


def _content(path: Path) -> dict[str, Any]:
    """Return a JSON object; one that is missing or damaged is empty."""
    try:
        content = read_json(path)
    except (FileNotFoundError, AblabError):
        return {}
    return content if isinstance(content, dict) else {}
