"""Language experts: layers that a model does not have, auxiliary losses that train nothing, stages that disagree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ablab.audit.findings import finding, listed, not_checked
from ablab.audit.training import built_by
from ablab.audit.view import AuditView, stage_place
from ablab.contract.base import Strict
from ablab.contract.experts import ExpertSettings
from ablab.contract.finding import Finding
from ablab.contract.kinds import trains
from ablab.contract.models import ModelReference
from ablab.study.schema import Experiment, Stage

#: Names that configurations of transformers have for the number of decoder layers.
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "decoder_layers")


def _experts(view: AuditView) -> Iterator[tuple[Experiment, Stage, ExpertSettings, Strict]]:
    """Yield the last stage of each experiment whose sections or parameters hold experts, with what holds them."""
    for experiment in view.study.experiments.values():
        for stage in reversed(experiment.stages):
            holder = _holder(stage)
            experts = getattr(holder, "experts", None)
            if holder is not None and isinstance(experts, ExpertSettings):
                yield experiment, stage, experts, holder
                break


def _holder(stage: Stage) -> Strict | None:
    """Return the block of a stage that says which experts its model has, or that it has none."""
    blocks = [block for block in (stage.parameters, *stage.sections.values()) if "experts" in type(block).model_fields]
    return next((block for block in blocks if isinstance(dict(block)["experts"], ExpertSettings | None)), None)


def differing(view: AuditView) -> Iterable[Finding]:
    """Errors: a stage that reads a trained model and builds it with other experts than it was trained with."""
    for experiment in view.study.experiments.values():
        for stage in experiment.stages:
            holder = _holder(stage)
            if holder is None or trains(stage.spec) or stage.kind == "merge":
                continue
            for need in stage.needs:
                owner = view.study.experiments.get(need.experiment or experiment.name)
                source = None if owner is None else next((s for s in owner.stages if s.name == need.stage), None)
                trained = None if source is None or not trains(source.spec) else _holder(source)
                if trained is None or _built(trained) == _built(holder):
                    continue
                yield finding(
                    view,
                    "experts-differ",
                    "error",
                    stage_place(experiment, stage),
                    f"{stage.name} of {experiment.name} builds {_told(holder)}, and {need.text} trained "
                    f"{_told(trained)}: the weights would not fit",
                    remedy=f"give {stage.name} the experts of {need.text}, by an anchor for example",
                    evidence={stage.name: _built(holder), need.text: _built(trained)},
                    subjects=(experiment.name,),
                )


def _built(holder: Strict) -> dict[str, object] | None:
    """Return what of the experts makes a model's weights and what it computes."""
    experts = getattr(holder, "experts", None)
    return None if experts is None else experts.model_dump(exclude={"balance", "z", "train"})


def _told(holder: Strict) -> str:
    experts = getattr(holder, "experts", None)
    if experts is None:
        return "a model without experts"
    kind = "" if experts.adapters is None else f", low-rank ({experts.adapters})"
    return f"experts {', '.join(experts.experts)} in layers {_listed(experts)} ({experts.routing}{kind})"


def layers_of(view: AuditView, experiment: Experiment, holder: Strict) -> int | None:
    """Return the decoder layers of the model that a block names, where its configuration stands in the study."""
    for name in type(holder).model_fields:
        reference = getattr(holder, name)
        if isinstance(reference, ModelReference):
            config = reference.config or built_by(view.study, experiment, reference.stage) or {}
            for key in _LAYERS:
                if isinstance(config.get(key), int):
                    return int(config[key])
    return None


def layer_beyond(view: AuditView) -> Iterable[Finding]:
    """Errors: experts in a layer that the decoder does not have."""
    for experiment, stage, settings, holder in _experts(view):
        count = layers_of(view, experiment, holder)
        if count is None:
            measured = view.fact(experiment.name, "experts.layers")
            count = None if measured is None else int(measured.value)
        where = f"{stage_place(experiment, stage)}"
        if count is None:
            yield not_checked(
                view,
                "expert-layer-beyond-model",
                where,
                f"how many layers the decoder of {experiment.name} has, which gets experts in {_listed(settings)}",
                subjects=(experiment.name,),
            )
        elif settings.beyond(count):
            yield finding(
                view,
                "expert-layer-beyond-model",
                "error",
                where,
                f"{experiment.name} has experts in layer {_listed(settings, settings.beyond(count))}, and its decoder "
                f"has {count} layers, 0 to {count - 1}",
                remedy=f"choose layers up to {count - 1}",
                evidence={"layers": list(settings.layers), "decoder": count},
                subjects=(experiment.name,),
            )


def _listed(settings: ExpertSettings, layers: list[int] | None = None) -> str:
    return listed([str(layer) for layer in (settings.layers if layers is None else layers)])


def idle_losses(view: AuditView) -> Iterable[Finding]:
    """Errors: auxiliary losses whose gradient reaches no router."""
    for experiment, stage, settings, _ in _experts(view):
        where = stage_place(experiment, stage)
        if not settings.balance and not settings.z:
            continue
        gradient = view.fact(experiment.name, "experts.auxiliary_gradient")
        if gradient is None:
            yield not_checked(
                view,
                "auxiliary-loss-without-gradient",
                where,
                f"whether the balance and z-loss of {experiment.name} reach its routers",
                subjects=(experiment.name,),
            )
        elif not gradient.value > 0:
            yield finding(
                view,
                "auxiliary-loss-without-gradient",
                "error",
                where,
                f"the balance and z-loss of {experiment.name} have no gradient in any router: they are logged and "
                "change nothing",
                remedy="let the routers train, and add the losses to the loss",
                evidence={"gradient": gradient.value},
                subjects=(experiment.name,),
            )


CHECKS = (layer_beyond, idle_losses, differing)
