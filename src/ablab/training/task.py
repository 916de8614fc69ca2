"""What a task gives the loop: a model, data and the loss of a batch. Everything else belongs to the loop.

The code of a task is a class with this shape, named in its `TaskSpec.code`, and built as
`Code(sections, inputs=order.inputs, study_folder=order.study_folder)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from ablab.contract.context import Context
from ablab.contract.result import Outcome

Batch = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Loss of one micro-batch as sums, so that any split of a batch adds up.

    Args:
        total: scalar, sum over the micro-batch of what is minimised (nats for a cross-entropy), with graph.
        weight: what `total` sums over (target tokens or samples); the loop divides by the weight of the whole
            effective batch.
        terms: named sums for the log, detached.
    """

    total: Tensor
    weight: float
    terms: Mapping[str, Tensor] = field(default_factory=dict)


class Data(Protocol):
    """A split of the data with random access; pure, so that a position is all a resume needs."""

    samples: int

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return sample ids of one epoch in training order, int64 of shape (samples,)."""
        ...

    def batch(self, ids: np.ndarray, *, seed: int, step: int) -> Batch:
        """Return the CPU tensors of these samples; first dimension of every tensor is the sample."""
        ...

    def weight(self, batch: Batch) -> float:
        """Return what the batch's loss will be summed over (target tokens), without running the model."""
        ...


@runtime_checkable
class Partitioned(Protocol):
    """Data that cuts a step into micro-batches itself, because its samples differ in length.

    Any cut adds up to the same gradient; a good one holds little padding and stays within memory.
    """

    def parts(self, ids: np.ndarray, *, most: int) -> list[np.ndarray]:
        """Return the sample ids of a step, each once, in micro-batches of at most `most` samples."""
        ...


class TaskCode(Protocol):
    """The compute-plane half of a task.

    It may also have `restrict(model) -> None`, called once the parts of a stage are applied, to freeze more of a model.
    """

    def model(self, *, seed: int) -> nn.Module:
        """Build the model on CPU in fp32, initialised from the stream `initialisation` of `seed`."""
        ...

    def data(self, split: str) -> Data:
        """Return a split ("train", "val", "test")."""
        ...

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        """Run the model on a micro-batch that is already on its device."""
        ...

    def metrics(self, split: str, totals: Mapping[str, float], weight: float) -> dict[str, float]:
        """Turn summed loss terms over a split into named metrics ("val/loss", "val/perplexity")."""
        ...

    def evaluate(self, model: nn.Module, parameters: Any, context: Context) -> Outcome:
        """Evaluate a trained model, already on its device, as the evaluate stage's parameters say."""
        ...

    def prepare(self, parameters: Any, context: Context) -> Outcome:
        """Do the prepare stage: write data into `context.artifacts`."""
        ...

    def facts(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """Return what only running can tell at initialisation: logits.scale, supervised.share, supervised.preview."""
        ...
