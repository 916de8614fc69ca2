"""The evaluate stage: a trained model from an input's checkpoint, judged by the task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError
from ablab.contract.order import Input, Order
from ablab.contract.result import Outcome
from ablab.contract.training import Trainability
from ablab.models.parts import apply_trainability
from ablab.store.layout import RunFolder
from ablab.store.manifest import NAME as MANIFEST
from ablab.training.checkpoint import MODEL, load_model
from ablab.training.inherit import adapted, training_parts
from ablab.training.memory import naming_size
from ablab.training.precision import autocast, resolve
from ablab.training.retention import INDEX, find
from ablab.training.task import TaskCode
from ablab.training.weights import load_weights
from ablab.worker.code import build_code, parameters_of


def run(order: Order, context: Context) -> Outcome:
    """Evaluate the weights of the one input that has checkpoints."""
    context.event("start", step=0)
    device = torch.device(context.numerics.device)
    parameters = sized(parameters_of(order), order)
    with context.time("start-up"):
        code = build_code(order)
        if getattr(parameters, "zero_shot", False):
            model, origin = code.model(seed=order.seed or 0).to(device).eval(), {"checkpoint.input": "none: zero-shot"}
        else:
            source, folder = weights_of(order)
            parts = training_parts(source.path)
            model = load_trained(code, folder, device=device, seed=order.seed or 0, parts=parts)
            origin = {"checkpoint.input": source.reference, "checkpoint.name": folder.name}
    precision = context.numerics.precision or resolve("auto", device)
    batch = getattr(parameters, "batch", 0)
    with (
        context.time("validation"),
        naming_size("evaluation_batch", batch, phase="evaluation"),
        torch.no_grad(),
        autocast(precision, device),
    ):
        outcome = code.evaluate(model, parameters, context)
    return outcome.model_copy(update={"facts": origin | outcome.facts})


def sized(parameters: Any, order: Order) -> Any:
    """Return the parameters with the batch that memory allows, after a back-off."""
    batch = order.resources.evaluation_batch
    if batch is None or "batch" not in type(parameters).model_fields:
        return parameters
    return parameters.model_copy(update={"batch": batch})


def weights_of(order: Order) -> tuple[Input, Path]:
    """Return the input whose weights are judged, and the folder of its checkpoint, or of a command's output."""
    found = _newest([given for given in order.inputs if (RunFolder(given.path).checkpoints / INDEX).is_file()])
    made = [(given, file) for given in order.inputs if given.kind == "command" for file in _weight_files(given)]
    if not found and len(made) == 1:
        return made[0]
    if len(found) != 1 or made:
        given = ", ".join(given.reference for given in order.inputs) or "none"
        raise ConfigError(
            f"stage {order.stage} of {order.experiment} needs one input with checkpoints (or a command whose output "
            f"is {MODEL}), found {len(found) + len(made)}; its inputs: {given}; correct its `needs`"
        )
    return found[0], find(RunFolder(found[0].path).checkpoints, found[0].checkpoint)


def _newest(found: list[Input]) -> list[Input]:
    """Return the inputs that no other one of them was made from: a backbone stands behind what was trained on it."""
    orders = [RunFolder(given.path).read_order() for given in found]
    behind = {before.key for order in orders if order is not None for before in order.inputs}
    return [given for given in found if given.key not in behind]


def _weight_files(given: Input) -> list[Path]:
    """Return the folders of the weights that a command declared as output: model.safetensors, in this name."""
    result = RunFolder(given.path).read_result()
    artifacts = result.artifacts.values() if result is not None else ()
    paths = [Path(given.path, artifact.path) for artifact in artifacts]
    return [path.parent for path in paths if path.name == MODEL]


def load_trained(
    code: TaskCode, folder: Path, *, device: torch.device, seed: int, parts: Mapping[str, Trainability] | None = None
) -> nn.Module:
    """Return the task's model with a checkpoint's weights, on its device, in evaluation mode.

    Args:
        code: the task.
        folder: the checkpoint.
        device: where the model goes.
        seed: of the run that is judged.
        parts: how its parts were trained, for those that have adapters.
    """
    model = code.model(seed=seed)
    apply_trainability(model, adapted(parts or {}), seed=seed)
    if (folder / MANIFEST).exists():
        load_model(folder, model)
    else:
        # A command's output: its run's result has its checksum.
        load_weights(folder / MODEL, model)
    return model.to(device).eval()
