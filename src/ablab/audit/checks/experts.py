"""Language experts: layers that the model does not have, and auxiliary losses that train nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ablab.audit.findings import finding, listed, not_checked
from ablab.audit.training import built_by
from ablab.audit.view import AuditView, stage_place
from ablab.contract.base import Strict
from ablab.contract.experts import ExpertSettings
from ablab.contract.finding import Finding
from ablab.contract.models import ModelReference
from ablab.study.schema import Experiment, Stage

#: Names that configurations of transformers have for the number of decoder layers.
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "decoder_layers")


def _experts(view: AuditView) -> Iterator[tuple[Experiment, Stage, ExpertSettings, Strict]]:
    """Yield the last stage of each experiment whose sections or parameters hold experts, with what holds them."""
    for experiment in view.study.experiments.values():
        for stage in reversed(experiment.stages):
            blocks = [stage.parameters, *stage.sections.values()]
            holder = next((b for b in blocks if isinstance(getattr(b, "experts", None), ExpertSettings)), None)
            if holder is not None:
                yield experiment, stage, holder.experts, holder
                break


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


CHECKS = (layer_beyond, idle_losses)
