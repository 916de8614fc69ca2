"""Scalars of TensorBoard event files, read while they are written; the package is loaded on first use only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablab.contract.command import Metrics
from ablab.contract.failure import ConfigError
from ablab.worker.command.readings import Reading


class EventFile:
    """One event file.

    Args:
        path: the file.
        source: how its metrics are named.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    def __init__(self, path: Path, source: Metrics) -> None:
        try:
            from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
        except ImportError:
            raise ConfigError(
                "metrics are read from TensorBoard files, but tensorboard is not installed: "
                "pip install ablab[tensorboard]"
            ) from None
        self._source = source
        self._loader = LegacyEventFileLoader(str(path))
        self.skipped = 0

    def poll(self) -> list[Reading]:
        """Return the scalars since the last call."""
        found: dict[int, dict[str, float]] = {}
        for event in self._loader.Load():
            for tag, value in _scalars(event):
                found.setdefault(int(event.step), {})[self._source.metric(tag)] = value
        return [Reading(step=step, values=values) for step, values in found.items()]


def _scalars(event: Any) -> Iterator[tuple[str, float]]:
    for value in event.summary.value:
        if value.HasField("simple_value"):
            yield value.tag, float(value.simple_value)
        elif value.HasField("tensor") and value.metadata.plugin_data.plugin_name in ("", "scalars"):
            from tensorboard.util.tensor_util import make_ndarray

            array = make_ndarray(value.tensor)
            if array.size == 1 and array.dtype.kind in "fiu":
                yield value.tag, float(array.reshape(-1)[0])


def event_files(folder: Path) -> list[Path]:
    """Return the event files in a folder and below."""
    if folder.is_file():
        return [folder]
    return sorted(folder.rglob("*tfevents*"))
