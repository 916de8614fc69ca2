"""Mirrors of a run's events in other tools, on request: TensorBoard, W&B, MLflow, trackio.

The store stays the record; a tracker that fails is told about once and then left alone, and never stops a run. A
tracker whose package is missing is a ConfigError before the run begins.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ablab.contract.failure import ConfigError
from ablab.contract.order import Order

#: Package and pip extra of each tracker.
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


class Tracker(Protocol):
    """One mirror."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take in scalars of a step."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class TensorBoard:
    """Event files in the attempt's folder `tensorboard/`."""

    def __init__(self, order: Order, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take in scalars of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WandB:
    """A W&B run: project by study, group by experiment, resumed by the run's key."""

    def __init__(self, order: Order, folder: Path) -> None:
        import wandb

        self._run = wandb.init(
            project=order.study,
            group=order.experiment,
            name=run_name(order),
            id=f"{order.stage}-{order.key}",
            resume="allow",
            dir=str(folder),
            config=settings(order),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take in scalars of a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """An MLflow run: experiment by study; the server is MLflow's own setting (MLFLOW_TRACKING_URI)."""

    def __init__(self, order: Order, folder: Path) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(order.study)
        self._run = mlflow.start_run(run_name=run_name(order), tags={"ablab.key": order.key})
        flat = flatten(settings(order))
        mlflow.log_params({name: str(value)[:500] for name, value in flat.items()})

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take in scalars of a step."""
        self._mlflow.log_metrics({name.replace("@", "_"): value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._mlflow.end_run()


class Trackio:
    """A trackio run: project by study."""

    def __init__(self, order: Order, folder: Path) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(project=order.study, name=run_name(order), config=settings(order), resume="allow")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take in scalars of a step."""
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._trackio.finish()


MAKERS: dict[str, Callable[[Order, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}


def run_name(order: Order) -> str:
    """Return the name a run has in other tools."""
    seed = "" if order.seed is None else f"/seed-{order.seed}"
    return f"{order.experiment}{seed}/{order.stage}"


def settings(order: Order) -> dict[str, Any]:
    """Return what other tools show as a run's configuration."""
    return {"key": order.key, "seed": order.seed, order.stage: order.parameters, **order.sections}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def check_installed(names: tuple[str, ...]) -> None:
    """Raise ConfigError for a tracker that is unknown or whose package is missing."""
    for name in names:
        if name not in PACKAGES:
            raise ConfigError(f"unknown tracker {name!r}; known: {', '.join(sorted(PACKAGES))}")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise ConfigError(f"tracker {name} needs its package: pip install 'ablab[{name}]'", tracker=name)


class Trackers:
    """All mirrors of a run, as the function that gets its events."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Mirror an event; never raises."""
        values = scalars(event)
        if values:
            self._each(lambda tracker: tracker.log(values, int(event["step"])))
        if event["e"] == "end":
            self._each(lambda tracker: tracker.close())

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                act(tracker)
            except Exception as error:
                del self._trackers[name]
                print(f"tracker {name} failed and is left out from here: {error}", file=sys.stderr)


def scalars(event: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a step or validation event by the name they get elsewhere."""
    if event["e"] == "validation":
        return dict(event["values"])
    if event["e"] != "step":
        return {}
    return {f"train/{k}": float(v) for k, v in event.items() if k not in ("e", "t", "step") and isinstance(v, float)}


def open_trackers(order: Order, folder: Path) -> Trackers | None:
    """Return the mirrors an order asks for; None when it asks for none.

    Raises:
        ConfigError: a tracker is unknown or not installed.
    """
    if not order.track:
        return None
    check_installed(order.track)
    opened: dict[str, Tracker] = {}
    for name in order.track:
        try:
            opened[name] = MAKERS[name](order, folder)
        except Exception as error:
            print(f"tracker {name} could not be opened and is left out: {error}", file=sys.stderr)
    return Trackers(opened)
