"""The stages export and ask: a trained model taken out in a format others load, or asked one question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError
from ablab.contract.order import Order
from ablab.contract.outlets import Exported
from ablab.contract.result import Outcome
from ablab.contract.training import Trainability
from ablab.models.hub import ARTIFACT
from ablab.training.inherit import training_parts
from ablab.training.precision import autocast, resolve
from ablab.worker.code import build_code, parameters_of
from ablab.worker.stages.evaluate import load_trained, weights_of


def export(order: Order, context: Context) -> Outcome:
    """Write the weights of the one input that has checkpoints in the format the task offers."""
    parameters = parameters_of(order)
    with context.time("start-up"):
        code, model, parts = _trained(order, torch.device("cpu"), "export")
    folder = Path(parameters.folder) if parameters.folder else context.folder / ARTIFACT
    with context.time("checkpoint"):
        folder.mkdir(parents=True, exist_ok=True)
        made: Exported = code.export(model, folder, parts)
    facts = {"export.folder": str(folder), "export.format": made.format, "export.why": made.why}
    artifacts = {} if parameters.folder else {"model": ARTIFACT}
    return Outcome(facts={**facts, "export.load": made.load}, artifacts=artifacts)


def ask(order: Order, context: Context) -> Outcome:
    """Answer one question."""
    parameters, device = parameters_of(order), torch.device(context.numerics.device)
    with context.time("start-up"):
        code, model, _ = _trained(order, device, "ask")
    precision = context.numerics.precision or resolve("auto", device)
    with context.time("validation"), torch.no_grad(), autocast(precision, device):
        answer: str = code.ask(model, parameters)
    return Outcome(facts={"answer": answer})


def _trained(order: Order, device: torch.device, what: str) -> tuple[Any, nn.Module, dict[str, Trainability]]:
    """Return the task's code, its trained model and how that was trained."""
    code: Any = build_code(order)
    if not hasattr(code, what):
        raise ConfigError(f"the task {order.task} has nothing to {what}")
    source, folder = weights_of(order)
    parts = training_parts(source.path)
    return code, load_trained(code, folder, device=device, seed=order.seed or 0, parts=parts), parts
