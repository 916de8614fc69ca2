"""Weights from an earlier stage: a model goes on where another run's checkpoint left it, as a whole or in parts.

What the earlier run trained through adapters is merged here, so that the next stage starts from a plain model and says
for itself what trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from ablab.contract.failure import ConfigError
from ablab.contract.order import Input
from ablab.contract.training import Trainability
from ablab.models.parts import apply_trainability, part_of, remove_adapters
from ablab.store.layout import RunFolder
from ablab.training.checkpoint import MODEL, load_model
from ablab.training.retention import find
from ablab.training.weights import load_weights


def training_parts(run: str | Path) -> dict[str, Trainability]:
    """Return how the parts of a finished run's model were trained; empty for a stage without parts."""
    order = RunFolder(Path(run)).read_order()
    raw = order.parameters.get("parts") if order is not None else None
    return {name: Trainability.model_validate(value) for name, value in (raw or {}).items()}


def adapted(parts: Mapping[str, Trainability]) -> dict[str, Trainability]:
    """Return the parts that have adapters: those alone change what a model is built of."""
    return {name: part for name, part in parts.items() if part.adapts}


def continue_from(model: nn.Module, given: Input) -> nn.Module:
    """Load the whole model of a finished run, in place, its adapters merged, everything able to train again.

    Args:
        model: the task's model, built with no adapters.
        given: a finished run with checkpoints.

    Raises:
        DataError: the checkpoint is damaged or belongs to another model.
    """
    parts = adapted(training_parts(given.path))
    apply_trainability(model, parts)
    load_model(find(RunFolder(given.path).checkpoints, given.checkpoint), model)
    remove_adapters(model, parts)
    return model.requires_grad_(True)


def take_part(model: nn.Module, given: Input, part: str) -> nn.Module:
    """Load one part of a finished run's model, in place (a connector that another experiment aligned).

    Raises:
        ConfigError: the model has no such part, or the run trained it through adapters.
        DataError: the checkpoint has no such part, or one of another shape.
    """
    part_of(model, part)
    if adapted(training_parts(given.path)).keys() & {part, "all"}:
        raise ConfigError(f"{given.reference} trained {part} through adapters: continue from the whole of it instead")
    load_weights(find(RunFolder(given.path).checkpoints, given.checkpoint) / MODEL, model, part=part)
    return model
