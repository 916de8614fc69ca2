"""Data: more tokens seen than there are, and splits that leak."""

from __future__ import annotations

from collections.abc import Iterable

from ablab.audit.findings import finding, listed, not_checked, shown
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding

#: Passes over the data that still count as one.
ONE_PASS = 1.005


def epochs(view: AuditView) -> Iterable[Finding]:
    """Warnings: arms that see more tokens (or samples) than their data holds, without having asked for epochs."""
    groups: dict[tuple[float, float, str], list[str]] = {}
    lacking: list[str] = []
    for experiment in view.study.experiments.values():
        stages = view.training(experiment)
        # What is counted is the last stage: a backbone's steps before it are over other samples.
        if not stages or stages[-1].epochs is not None:
            continue
        counted = _counts(view, experiment.name)
        if counted is None and not experiment.planned:
            lacking.append(experiment.name)
        elif counted is not None and counted[0] > ONE_PASS * counted[1]:
            groups.setdefault(counted, []).append(experiment.name)
    for (seen, held, unit), names in groups.items():
        yield finding(
            view,
            "epochs-exceed-data",
            "warning",
            f"experiments.{names[0]}",
            f"{', '.join(names)} see {shown(int(seen))} {unit} of data that holds {shown(int(held))}: "
            f"{seen / held:.3g} epochs, not one pass",
            remedy="say how many epochs are meant, take more data, or train fewer steps",
            evidence={"seen": seen, "held": held, "epochs": seen / held, "unit": unit},
            subjects=tuple(names),
        )
    if lacking:
        yield not_checked(
            view,
            "epochs-exceed-data",
            f"experiments.{lacking[0]}",
            f"how much data {listed(lacking)} hold is not known before it is prepared",
            subjects=tuple(lacking),
        )


def _counts(view: AuditView, experiment: str) -> tuple[float, float, str] | None:
    """Return (seen, held, unit) of an arm, in tokens where known, else in samples of its last training stage."""
    for unit, held_names in (("tokens", ("tokens.train", "tokens.held")), ("samples", ("samples.train",))):
        seen = _planned(view, experiment, unit)
        held = next((value for name in held_names if (value := _held(view, experiment, name))), None)
        if seen is not None and held is not None:
            return float(seen), held, unit
    return None


def _held(view: AuditView, experiment: str, name: str) -> float | None:
    """Return how much an arm's data holds: what its last training stage found, else any other run or the study."""
    for last in view.training(view.study.experiments[experiment])[-1:]:
        own = (view.facts(last.owner, stage=last.stage.name) or {}).get(name)
        if own is not None:
            return float(own)
    fact = view.fact(experiment, name)
    return None if fact is None else float(fact.value)


def _planned(view: AuditView, experiment: str, unit: str) -> float | None:
    """Return what an arm is planned to see, else what its finished run saw."""
    arm = view.study.experiments[experiment]
    planned: float | None = view.derived(arm, f"{unit}.seen")
    if planned is None and unit == "samples":
        planned = next((stage.samples for stage in view.training(arm)[-1:]), None)
    if planned is None:
        fact = view.fact(experiment, f"{unit}.seen")
        planned = fact.value if fact is not None and fact.source == "result" else None
    return planned


def supervision(view: AuditView) -> Iterable[Finding]:
    """Errors: batches where nothing is supervised; warnings: where next to nothing is."""
    for experiment in view.study.experiments.values():
        fact = view.fact(experiment.name, "supervised.share")
        if fact is None or not isinstance(fact.value, int | float) or fact.value >= 0.05:
            continue
        preview = (view.facts(experiment.name) or {}).get("supervised.preview")
        yield finding(
            view,
            "nothing-supervised" if fact.value == 0 else "little-supervised",
            "error" if fact.value == 0 else "warning",
            f"experiments.{experiment.name}",
            f"{fact.value:.1%} of the tokens of {experiment.name}'s first batch are supervised",
            remedy="check the masking of labels against the decoded preview",
            evidence={"share": fact.value, "preview": preview},
            subjects=(experiment.name,),
        )


CHECKS = (epochs, supervision)
