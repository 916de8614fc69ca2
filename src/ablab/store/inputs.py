"""What a stage reads: the runs that are its inputs, and those behind them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ablab.contract.failure import ConfigError
from ablab.contract.order import Input
from ablab.store.layout import RunFolder


def reachable(inputs: Iterable[Input]) -> list[Input]:
    """Return inputs and all that is behind them, nearest first, each run once."""
    return [given for layer in _layers(inputs) for given in layer]


def prepared_artifacts(inputs: Iterable[Input]) -> Path:
    """Return the artifacts of the one prepare run among the inputs, else among what is next behind them.

    Raises:
        ConfigError: there is none, or there are several.
    """
    prepared = ([given for given in layer if given.kind == "prepare"] for layer in _layers(inputs))
    found = sorted({given.path for given in next(filter(None, prepared), [])})
    if len(found) != 1:
        names = ", ".join(Path(path).name for path in found) or "none"
        raise ConfigError(f"the stage needs the data of one prepare stage, found {names}; correct its `needs`")
    return Path(found[0]) / "artifacts"


def _layers(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    """Yield the inputs, then what they read, and so on; each run once, as it is first met."""
    seen: set[str] = set()
    wanted = list(inputs)
    while wanted:
        layer: dict[str, Input] = {}
        for given in wanted:
            if given.path not in seen:
                layer.setdefault(given.path, given)
        if layer:
            yield list(layer.values())
        seen.update(layer)
        orders = (RunFolder(Path(path)).read_order() for path in layer)
        wanted = [given for order in orders if order is not None for given in order.inputs]
