"""Stage kinds whose running is the house's own: a task says what is its own in them with `dataclasses.replace`.

    TRAIN = replace(stages.TRAIN, sections=("model",), summary="train the model")

The worker runs them by the methods of the task's code: `prepare`; those the training loop calls; `evaluate`, for every
kind that asks something of a trained model, told apart by the type of its parameters.
"""

from __future__ import annotations

from typing import Any

from ablab.contract.base import Strict
from ablab.contract.task import Sections, StageSpec
from ablab.contract.training import Train


class Nothing(Strict):
    """Parameters of a stage that has none."""


def _steps(_: Sections, parameters: Any) -> int | None:
    """Return the steps of a train stage where it counts steps, not epochs."""
    return parameters.steps if isinstance(parameters, Train) else None


def _batch(_: Sections, parameters: Any) -> int | None:
    """Return the samples of a training step."""
    return parameters.batch if isinstance(parameters, Train) else None


PREPARE = StageSpec(
    kind="prepare",
    parameters=Nothing,
    sections=("data",),
    seeded=False,
    run="ablab.worker.stages.prepare:run",
    accelerator=False,
)

TRAIN = StageSpec(
    kind="train",
    parameters=Train,
    run="ablab.worker.stages.train:run",
    inputs=("prepare",),
    steps=_steps,
    effective_batch=_batch,
    makes_checkpoints=True,
    metrics=("train/loss", "val/loss"),
)

EVALUATE = StageSpec(
    kind="evaluate",
    parameters=Nothing,
    seeded=False,
    run="ablab.worker.stages.evaluate:run",
    inputs=("prepare", "train"),
)
