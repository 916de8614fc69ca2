"""The stages that train backbones, and leave them in transformers' format."""

from __future__ import annotations

from ablab.contract.context import Context
from ablab.contract.order import Order
from ablab.contract.result import Outcome
from ablab.models.hub import ARTIFACT
from ablab.tasks.vision_language.backbones import LanguageBackbone, TowerBackbone
from ablab.tasks.vision_language.config import SPEC, Language, Tower
from ablab.training.checkpoint import load_model
from ablab.training.loop import train
from ablab.training.retention import find


def train_backbone(order: Order, context: Context) -> Outcome:
    """Train a backbone and leave it in transformers' format as the artifact `model`."""
    with context.time("start-up"):
        data = SPEC.sections["data"].model_validate(order.sections["data"])
        kind = SPEC.stages[order.kind].parameters
        parameters = kind.model_validate(order.parameters)
        assert isinstance(parameters, Language | Tower)
        make = LanguageBackbone if isinstance(parameters, Language) else TowerBackbone
        code = make({"data": data}, inputs=order.inputs, study_folder=order.study_folder, parameters=parameters)
    outcome = train(code, parameters, context, direction=lambda name: SPEC.metric(name).direction)
    with context.time("checkpoint"):
        model = code.model(seed=order.seed or 0)
        load_model(find(context.checkpoints, "last"), model)
        code.export(model, context.folder / ARTIFACT)
    return outcome.model_copy(update={"artifacts": outcome.artifacts | {"model": ARTIFACT}})
