"""Loss and metrics of a split: sums over all samples, never a mean of batch means."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ablab.contract.failure import NotFiniteError, StopRequested
from ablab.training.accumulation import share
from ablab.training.batches import Prefetcher, aligned, to_device
from ablab.training.distribution import World
from ablab.training.memory import naming_size
from ablab.training.precision import Precision, autocast
from ablab.training.task import Batch, Data, TaskCode


@torch.no_grad()
def validate(
    code: TaskCode,
    model: nn.Module,
    data: Data,
    *,
    split: str,
    batch: int,
    samples: int | None,
    seed: int,
    device: torch.device,
    precision: Precision,
    world: World,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Return the task's metrics of the first `samples` of a split (None: all), computed in evaluation mode.

    The task gets the sums of its loss terms, and under "loss" the sum of `Losses.total`.

    Args:
        code: the task's code.
        model: on its device.
        data: the split.
        split: its name.
        batch: samples at once; the result depends on it only by the order of addition.
        samples: how many samples from the start.
        seed: passed on to the data.
        device: where the model is.
        precision: as in training.
        world: processes that share the samples.
        stop: asked before each batch when there is one process.

    Raises:
        StopRequested: `stop` became true; nothing was measured.
        NotFiniteError: a metric is not a finite number.
        OutOfMemoryError: detail {"evaluation_batch": batch, "phase": "validation"}.
    """
    count = data.samples if samples is None else min(samples, data.samples)
    _, ids = share(np.arange(count, dtype=np.int64), rank=world.rank, size=world.size)
    parts = -(-len(ids) // batch)

    def make(part: int) -> tuple[Batch, float]:
        made = aligned(data.batch(ids[part * batch : (part + 1) * batch], seed=seed, step=part))
        return made, float(data.weight(made))

    was_training = model.training
    model.eval()
    sums = _Sums(device)
    try:
        with Prefetcher(make, 0, parts) as batches, naming_size("evaluation_batch", batch, phase="validation"):
            for made, weight in batches:
                if world.size == 1 and stop():
                    raise StopRequested("stopped during validation")
                with autocast(precision, device):
                    losses = code.losses(model, to_device(made, device))
                sums.add({"loss": losses.total, **losses.terms}, weight)
    finally:
        model.train(was_training)
    totals, weight = sums.over(world)
    return _checked(split, code.metrics(split, totals, weight))


class _Sums:
    """Sums of named scalars in fp64, on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._values: dict[str, Tensor] = {}
        self._weight = 0.0

    def add(self, values: dict[str, Tensor], weight: float) -> None:
        self._weight += weight
        for name, value in values.items():
            value = torch.as_tensor(value, dtype=torch.float64, device=self._device)
            self._values[name] = self._values[name] + value if name in self._values else value

    def over(self, world: World) -> tuple[dict[str, float], float]:
        """Return the sums and the weight over all processes."""
        names = sorted({name for part in world.gather(list(self._values)) for name in part})
        zero = torch.zeros((), dtype=torch.float64, device=self._device)
        own = torch.stack([self._values.get(name, zero) for name in names]).tolist() if names else []
        *totals, weight = world.sum([*own, self._weight])
        return dict(zip(names, totals, strict=True)), weight


def _checked(split: str, values: dict[str, float]) -> dict[str, float]:
    for name, value in values.items():
        if not math.isfinite(value):
            raise NotFiniteError(f"validation on {split}: {name} is {value}", metric=name, split=split)
    return {name: float(value) for name, value in values.items()}
