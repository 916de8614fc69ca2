"""The evaluate stage: a trained model from an input's checkpoint, judged by the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError
from ablab.contract.order import Input, Order
from ablab.contract.result import Outcome
from ablab.store.layout import RunFolder
from ablab.training.checkpoint import load_model
from ablab.training.memory import naming_size
from ablab.training.precision import autocast, resolve
from ablab.training.retention import INDEX, find
from ablab.training.task import TaskCode
from ablab.worker.code import build_code, parameters_of


def run(order: Order, context: Context) -> Outcome:
    """Evaluate the weights of the one input that has checkpoints."""
    context.event("start", step=0)
    device = torch.device(context.numerics.device)
    parameters = sized(parameters_of(order), order)
    with context.time("start-up"):
        code = build_code(order)
        source, folder = weights_of(order)
        model = load_trained(code, folder, device=device, seed=order.seed or 0)
    precision = context.numerics.precision or resolve("auto", device)
    batch = getattr(parameters, "batch", 0)
    with (
        context.time("validation"),
        naming_size("evaluation_batch", batch, phase="evaluation"),
        torch.no_grad(),
        autocast(precision, device),
    ):
        outcome = code.evaluate(model, parameters, context)
    facts = {"checkpoint.input": source.reference, "checkpoint.name": folder.name} | outcome.facts
    return outcome.model_copy(update={"facts": facts})


def sized(parameters: Any, order: Order) -> Any:
    """Return the parameters with the batch that memory allows, after a back-off."""
    batch = order.resources.evaluation_batch
    if batch is None or "batch" not in type(parameters).model_fields:
        return parameters
    return parameters.model_copy(update={"batch": batch})


def weights_of(order: Order) -> tuple[Input, Path]:
    """Return the input whose weights are judged, and the folder of its checkpoint."""
    found = [given for given in order.inputs if (RunFolder(given.path).checkpoints / INDEX).is_file()]
    if len(found) != 1:
        given = ", ".join(given.reference for given in order.inputs) or "none"
        raise ConfigError(
            f"stage {order.stage} of {order.experiment} needs one input with checkpoints, found {len(found)}; "
            f"its inputs: {given}; correct its `needs`"
        )
    return found[0], find(RunFolder(found[0].path).checkpoints, found[0].checkpoint)


def load_trained(code: TaskCode, folder: Path, *, device: torch.device, seed: int) -> nn.Module:
    """Return the task's model with a checkpoint's weights, on its device, in evaluation mode."""
    model = code.model(seed=seed)
    load_model(folder, model)
    return model.to(device).eval()
