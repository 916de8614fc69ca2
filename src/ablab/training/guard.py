"""What a step yields for the log, and the guard against numbers that are not finite.

On a CPU every step is read at once. On a GPU reading would wait for the device, so records queue up and are read
together when a line is logged, a validation or a checkpoint is due: a bad step is still named exactly, and nothing
after it is ever kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ablab.contract.failure import NotFiniteError
from ablab.training.accumulation import part_of
from ablab.training.batches import StepBatch, to_device
from ablab.training.distribution import World
from ablab.training.state import Sums
from ablab.training.task import TaskCode

#: Sample ids told in a failure's record.
MOST_IDS = 64


@dataclass(slots=True)
class MicroSums:
    """Sums over the micro-batches of one step, on the device."""

    loss: Tensor | None = None
    terms: dict[str, Tensor] = field(default_factory=dict)

    def add(self, total: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Take in one micro-batch; everything is detached."""
        total = total.detach()
        self.loss = total if self.loss is None else self.loss + total
        for name, value in terms.items():
            value = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value), device=total.device)
            self.terms[name] = self.terms[name] + value if name in self.terms else value


@dataclass(frozen=True, slots=True)
class Pending:
    """The record of a step that has not been read from the device."""

    step: int
    ids: np.ndarray
    weight: float
    names: tuple[str, ...]
    values: Tensor


class Ledger:
    """Reads the records of steps into the sums of the line being averaged, and stops a run that went wrong."""

    def __init__(self, sums: Sums, *, device: torch.device, world: World, scaled: bool) -> None:
        self.sums = sums
        self._later = device.type != "cpu"
        self._world = world
        self._scaled = scaled
        self._pending: list[Pending] = []

    def add(self, batch: StepBatch, weight: float, micro: MicroSums, norm: Tensor | None) -> None:
        """Take in a step: this process's loss sums, and the gradient norm before clipping."""
        assert micro.loss is not None
        names = tuple(micro.terms)
        if not self._later:
            numbers = [micro.loss.item(), 0.0 if norm is None else norm.item()]
            numbers += [term.item() for term in micro.terms.values()]
            self._take(batch.step, batch.ids, weight, names, numbers)
            return
        columns = [micro.loss, micro.loss.new_zeros(()) if norm is None else norm, *micro.terms.values()]
        values = torch.stack([column.double() for column in columns])
        self._pending.append(Pending(batch.step, batch.ids, weight, names, values))

    def read(self) -> None:
        """Read all queued records. Raises NotFiniteError for the first bad step."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        same = all(record.names == pending[0].names for record in pending)
        rows = torch.stack([r.values for r in pending]).tolist() if same else [r.values.tolist() for r in pending]
        for record, row in zip(pending, rows, strict=True):
            self._take(record.step, record.ids, record.weight, record.names, row)

    def _take(self, step: int, ids: np.ndarray, weight: float, names: tuple[str, ...], row: list[float]) -> None:
        loss, norm, *terms = row
        # Under loss scaling an overflowing gradient is normal: that step is left out and the scale falls.
        bad = not math.isfinite(norm) and not self._scaled
        if bad or (self._world.size == 1 and not math.isfinite(loss)):
            raise not_finite(step, ids, loss=loss, norm=norm, world=self._world)
        self.sums.loss += loss
        self.sums.weight += weight
        self.sums.norm += norm
        self.sums.steps += 1
        for name, value in zip(names, terms, strict=True):
            self.sums.terms[name] = self.sums.terms.get(name, 0.0) + value

    @property
    def open(self) -> bool:
        """Whether steps wait for the next line."""
        return bool(self._pending) or self.sums.steps > 0

    def line(self) -> dict[str, float]:
        """Return the averages since the last line (over all processes) and begin a new one."""
        self.read()
        sums = self.sums
        names = sorted(sums.terms)
        loss, weight, *terms = self._world.sum([sums.loss, sums.weight, *(sums.terms[name] for name in names)])
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss of the last {sums.steps} steps is {loss}", loss=loss)
        weight = weight or 1.0
        values = {name: term / weight for name, term in zip(names, terms, strict=True)}
        values |= {"loss": loss / weight, "grad_norm": sums.norm / max(1, sums.steps)}
        sums.loss = sums.weight = sums.norm = 0.0
        sums.steps = 0
        sums.terms.clear()
        return values


def not_finite(step: int, ids: np.ndarray, *, loss: float, norm: float, world: World) -> NotFiniteError:
    """Return the error for a bad step, naming the samples of all processes."""
    samples = [int(i) for part in world.gather(ids.tolist()) for i in part]
    what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
    shown = ", ".join(map(str, samples[:8])) + (", ..." if len(samples) > 8 else "")
    return NotFiniteError(
        f"step {step}: {what} is not finite; samples of the batch: {shown}",
        step=step,
        samples=samples[:MOST_IDS],
        loss=str(loss),
        grad_norm=str(norm),
    )


@torch.no_grad()
def culprits(code: TaskCode, model: nn.Module, batch: StepBatch, device: torch.device) -> list[int]:
    """Return the ids of samples whose own loss is not finite, taken one at a time; empty when each alone is fine."""
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        return []
    found = []
    was_training = model.training
    model.eval()
    offset = 0
    for part, size in zip(batch.micros, batch.sizes, strict=True):
        for index in range(size):
            one = part_of(part, size, index, index + 1)
            if not bool(torch.isfinite(code.losses(model, to_device(one, device)).total)):
                found.append(int(batch.ids[offset + index]))
        offset += size
    model.train(was_training)
    return found
