"""Audits of what the sections of a vision-language study build, and what they derive of its size; no torch.

Layers that a model does not have, and heads that 2D-RoPE does not fit, are named before anything is loaded; how much
memory training takes is told to the general audit (`ablab.audit.checks.memory`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ablab.audit.findings import finding, listed
from ablab.audit.training import built_by, stage_of
from ablab.audit.view import AuditView, Derivations, stage_place
from ablab.contract.finding import Finding
from ablab.contract.merge import LOADED, Merge
from ablab.contract.models import ModelReference
from ablab.study.schema import Experiment, Stage, Study
from ablab.tasks.vision_language.config import Phase
from ablab.tasks.vision_language.sections import Data, Model
from ablab.tasks.vision_language.structure.sizes import DECODERS, TOWERS, architecture, checkpoint_bytes, memory

#: Layers of towers and language models of the hub that studies name, beyond those whose sizes are known; for others a
#: rehearsal tells.
LAYERS = {
    "openai/clip-vit-large-patch14": 24,
    "openai/clip-vit-large-patch14-336": 24,
    "openai/clip-vit-base-patch16": 12,
    "google/siglip-so400m-patch14-384": 27,
    "google/siglip-base-patch16-224": 12,
    "google/siglip2-so400m-patch14-384": 27,
    "facebook/dinov2-large": 24,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 22,
    "stabilityai/stablelm-2-zephyr-1_6b": 24,
    "microsoft/phi-2": 32,
    "openbmb/MiniCPM-2B-dpo-bf16": 40,
}


@dataclass(frozen=True, slots=True)
class At:
    """A phase of an arm, with its model section."""

    arm: Experiment
    stage: Stage
    phase: Phase
    model: Model

    @property
    def where(self) -> str:
        """Its place in the study file."""
        return stage_place(self.arm, self.stage)


def phases(study: Study, *, planned: bool = False) -> Iterator[At]:
    """Yield the phases that arms hold themselves."""
    for arm in study.experiments.values():
        if arm.planned and not planned:
            continue
        for stage in arm.stages:
            model = stage.sections.get("model")
            if isinstance(stage.parameters, Phase) and isinstance(model, Model):
                yield At(arm, stage, stage.parameters, model)


def depth_of(study: Study, arm: Experiment, model: Model, part: Literal["llm", "tower"]) -> int | None:
    """Return the layers of a part: of its architecture, or of a known name; else None."""
    config = architecture_of(study, arm, model, part)
    if config is not None:
        value = config.get("num_hidden_layers")
        return value if isinstance(value, int) else None
    return LAYERS.get(getattr(model, part).name or "")


def architecture_of(
    study: Study, arm: Experiment, model: Model, part: Literal["llm", "tower"]
) -> Mapping[str, Any] | None:
    """Return a part's configuration: the study's, one known by name, or that of what the stage it comes from left."""
    reference: ModelReference = getattr(model, part)
    if reference.stage is None:
        return architecture(reference, DECODERS if part == "llm" else TOWERS)
    return built_by(study, arm, reference.stage) or _left_by(study, arm, reference.stage, part)


def _left_by(study: Study, arm: Experiment, stage: str, part: Literal["llm", "tower"]) -> Mapping[str, Any] | None:
    """Return the configuration of what a stage merged or trained further: that of its base, or of its own model."""
    source = stage_of(study, arm, stage)
    if source is None:
        return None
    owner, parameters, model = study.experiments[source[0]], source[1].parameters, source[1].sections.get("model")
    if not isinstance(model, Model):
        return None
    base = parameters.base or parameters.models[0].model if isinstance(parameters, Merge) else LOADED
    if base != LOADED:
        origin = "name" if stage_of(study, owner, base) is None else "stage"
        model = model.model_copy(update={part: ModelReference(**{origin: base})})
    elif getattr(model, part).stage == stage:
        return None
    return architecture_of(study, owner, model, part)


def _with_architectures(study: Study, arm: Experiment, model: Model) -> Model:
    """Return a model section whose parts that come from stages stand by their configuration, where it is known."""
    found: dict[str, ModelReference] = {}
    for part in ("llm", "tower"):
        reference: ModelReference = getattr(model, part)
        config = None if reference.stage is None else architecture_of(study, arm, model, part)
        if config is not None:
            found[part] = reference.model_copy(update={"stage": None, "config": dict(config)})
    return model.model_copy(update=found)


def rotary_misfit(view: AuditView) -> Iterable[Finding]:
    """Errors: 2D-RoPE for heads whose dimensions cannot be shared by two axes of pairs."""
    seen: set[tuple[str, int]] = set()
    for at in phases(view.study, planned=True):
        config = architecture_of(view.study, at.arm, at.model, "tower") if at.model.rotary_2d else None
        heads = None if config is None else config.get("num_attention_heads")
        if config is None or not heads or (at.arm.name, heads) in seen:
            continue
        seen.add((at.arm.name, heads))
        dimensions = config.get("head_dim") or config["hidden_size"] // heads
        if dimensions % 4 == 0:
            continue
        yield finding(
            view,
            "rotary-misfit",
            "error",
            f"experiments.{at.arm.name}.model.rotary_2d",
            f"the tower of {at.arm.name} has heads of {dimensions} dimensions, and 2D-RoPE turns pairs of dimensions "
            "for two axes: they have to divide by 4",
            remedy="choose a tower whose heads do, or leave rotary_2d out",
            evidence={"dimensions": dimensions, "heads": heads},
            subjects=(at.arm.name,),
        )


def layers_beyond(view: AuditView) -> Iterable[Finding]:
    """Errors: layers that are read, or before which tokens are dropped, and that the model does not have."""
    seen: set[tuple[str, str]] = set()
    for at in phases(view.study, planned=True):
        for field, part, layers, first, last in _named(view, at):
            wrong = [layer for layer in layers if not first <= layer <= last]
            if not wrong or (at.arm.name, field) in seen:
                continue
            seen.add((at.arm.name, field))
            yield finding(
                view,
                "layer-beyond-model",
                "error",
                f"experiments.{at.arm.name}.model.{field}",
                f"{at.arm.name} names layer {listed([str(layer) for layer in wrong])} in {field}, and its {part} takes "
                f"{first} to {last}",
                remedy=f"choose layers from {first} to {last}",
                evidence={"layers": list(layers), "last": last},
                subjects=(at.arm.name,),
            )


def _named(view: AuditView, at: At) -> Iterator[tuple[str, str, tuple[int, ...], int, int]]:
    """Yield (field, part, layers, first, last) of every setting of an arm that names layers."""
    tower, decoder = (depth_of(view.study, at.arm, at.model, part) for part in ("tower", "llm"))
    if tower is not None and at.model.pyramid is not None:
        yield "pyramid.layers", "tower", at.model.pyramid.layers, 1, tower
    if tower is not None and at.model.pyramid is None:
        yield "feature_layer", "tower", (at.model.feature_layer,), -tower - 1, tower
    if decoder is not None and at.model.language_drop is not None:
        yield "language_drop.before", "language model", at.model.language_drop.before, 1, decoder - 1


def idle_dropping(view: AuditView) -> Iterable[Finding]:
    """Notes: patches are dropped in the tower, and the language model reads as many tokens as without."""
    found = {
        at.arm.name: at
        for at in phases(view.study, planned=True)
        if at.model.pyramid is not None and at.model.pyramid.dropping is not None and at.model.language_drop is None
    }
    if found:
        names = list(found)
        yield finding(
            view,
            "dropping-saves-no-token",
            "note",
            f"experiments.{names[0]}.model.pyramid.dropping",
            f"what {listed(names)} drop in the tower leaves zeros, or is pooled to a fixed number of tokens: the "
            "language model reads as many tokens as without, so answers come no faster",
            remedy="drop tokens in the language model (model.language_drop) where speed is meant",
            evidence={name: at.model.connector.name for name, at in found.items()},
            subjects=tuple(names),
        )


def idle_rates(view: AuditView) -> Iterable[Finding]:
    """Notes: a scale of which `least` keeps every feature, so that its rate drops nothing."""
    found: dict[tuple[float, float, int, int], list[str]] = {}
    for at in phases(view.study, planned=True):
        config = architecture_of(view.study, at.arm, at.model, "tower")
        pyramid = at.model.pyramid
        size, patch = (None, None) if config is None else (config.get("image_size"), config.get("patch_size"))
        if pyramid is None or pyramid.dropping is None or not isinstance(size, int) or not isinstance(patch, int):
            continue
        dropping = pyramid.dropping
        for scale, rate in zip(pyramid.scales, dropping.rates, strict=True):
            side = max(1, round(size // patch * scale))
            blocks = (side // dropping.block) ** 2
            if rate > 0 and blocks and -(-dropping.least // dropping.block**2) >= blocks:
                names = found.setdefault((scale, rate, side, dropping.least), [])
                names += [at.arm.name] if at.arm.name not in names else []
    for (scale, rate, side, least), names in found.items():
        yield finding(
            view,
            "drop-rate-idle",
            "note",
            f"experiments.{names[0]}.model.pyramid.dropping",
            f"scale {scale:g} of {listed(names)} has {side} x {side} features and keeps {least} at least: its rate "
            f"{rate:g} drops nothing",
            remedy="lower least, or say that this scale is whole (rate 0)",
            evidence={"scale": scale, "features": side * side, "least": least},
            subjects=tuple(names),
        )


def memory_of(study: Study, arm: Experiment) -> Mapping[str, Mapping[str, int]]:
    """Return the bytes that each phase of an arm holds on a device, by what holds them; unknown ones are left out."""
    found = {}
    for stage, phase, model in _phases_of(study, arm):
        data = stage.sections.get("data")
        told = memory(model, data, phase) if isinstance(data, Data) else None
        if told is not None:
            found[stage.name] = told.items
    return found


def checkpoint_of(study: Study, arm: Experiment) -> int | None:
    """Return the bytes of an arm's largest checkpoint; None where no phase's is known."""
    sizes = (checkpoint_bytes(model, phase) for _, phase, model in _phases_of(study, arm))
    return max((size for size in sizes if size is not None), default=None)


def _phases_of(study: Study, arm: Experiment) -> Iterator[tuple[Stage, Phase, Model]]:
    """Yield (stage, phase, model with its architectures) of an arm's own phases."""
    for stage in arm.stages:
        model = stage.sections.get("model")
        if isinstance(stage.parameters, Phase) and isinstance(model, Model):
            yield stage, stage.parameters, _with_architectures(study, arm, model)


def decoder_layers(study: Study, arm: Experiment) -> int | None:
    """Return the layers of an arm's decoder where its configuration or name tells."""
    for stage in arm.stages:
        model = stage.sections.get("model")
        config = architecture_of(study, arm, model, "llm") if isinstance(model, Model) else None
        if config is not None:
            return int(config["num_hidden_layers"])
    return None


AUDITS = (rotary_misfit, layers_beyond, idle_dropping, idle_rates)
DERIVED: Derivations = {
    "memory.forecast": memory_of,
    "checkpoint.bytes": checkpoint_of,
    "experts.layers": decoder_layers,
}
