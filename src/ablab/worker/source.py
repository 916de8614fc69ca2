"""Running from the frozen source that an order names; imports nothing heavy, so that switching costs little."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

import ablab


def wanted_source(order_path: str | os.PathLike[str]) -> str | None:
    """Return the source folder an order names, when it is not the one this process runs from."""
    try:
        source = json.loads(Path(order_path).read_bytes()).get("source")
    except (OSError, ValueError, AttributeError):
        # What is wrong with the order is told by the one who reads it in earnest.
        return None
    if not isinstance(source, str) or not (Path(source) / "ablab").is_dir():
        return None
    return None if loaded_from() == Path(source).resolve() else source


def loaded_from() -> Path:
    """Return the folder that the package is imported from."""
    return Path(ablab.__file__).resolve().parent.parent


def enter_frozen_source(order_path: str | os.PathLike[str]) -> None:
    """Start this process again from the order's frozen source, where it has one and runs from another."""
    source = wanted_source(order_path)
    if source is not None:
        restart(order_path, source)


def restart(order_path: str | os.PathLike[str], source: str) -> NoReturn:
    """Replace this process by a fresh worker that imports from `source`."""
    paths = [source, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    command = [sys.executable, "-m", "ablab.worker", os.fspath(order_path)]
    os.execve(sys.executable, command, environment)
