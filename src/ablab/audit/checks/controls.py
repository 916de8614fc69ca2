"""Controls: an experiment too short or too small to see anything must not say "met"."""

from __future__ import annotations

from collections.abc import Iterable

from ablab.audit.findings import finding, listed, place
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding


def control_absent(view: AuditView) -> Iterable[Finding]:
    """Warnings: a comparison with a criterion and no arm that must fail."""
    for index, comparison in view.comparisons():
        if comparison.criterion.conditions and not comparison.fail_controls:
            yield finding(
                view,
                "control-absent",
                "warning",
                place(index, comparison),
                "no control: nothing shows that this comparison could see a failure",
                remedy="name an arm that must fail under `controls: {fail: [...]}`",
                comparison=comparison,
            )


def control_planned(view: AuditView) -> Iterable[Finding]:
    """Warnings: a control that is only planned, so that no verdict can be given."""
    for index, comparison in view.comparisons():
        names = (*comparison.fail_controls, *comparison.pass_controls)
        planned = [name for name in names if view.study.experiments[name].planned]
        if planned:
            yield finding(
                view,
                "control-planned",
                "warning",
                place(index, comparison, planned[0]),
                f"the control {listed(planned)} is planned and will not run, and without it no verdict is given",
                remedy="run the control, or take it out",
                subjects=tuple(planned),
                comparison=comparison,
            )


def inside_not_audited(view: AuditView) -> Iterable[Finding]:
    """Notes: stages that run a command of the user, whose inside no check sees."""
    opaque = {
        experiment.name: [stage.name for stage in experiment.stages if stage.kind == "command"]
        for experiment in view.study.experiments.values()
    }
    names = [name for name, stages in opaque.items() if stages]
    if names:
        yield finding(
            view,
            "not-audited-inside",
            "note",
            "experiments",
            f"{listed(names)} run a command: what it does inside is not audited",
            evidence={name: opaque[name] for name in names},
            subjects=tuple(names),
        )


CHECKS = (control_absent, control_planned, inside_not_audited)
