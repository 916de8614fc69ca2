"""Run every check on a study and return its findings, the worst first, with what the study's author accepts.

A check is a function of an `AuditView` that returns findings. The general ones stand in `ablab.audit.checks`, a
task's own are named in its `TaskSpec.audits` as "module:attribute" (a tuple of such functions); the same module may
hold `DERIVED`, facts that the task can tell from the study without running it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import cast

from ablab.audit.checks import CHECKS
from ablab.audit.view import AuditView, Derivations
from ablab.contract.finding import Finding
from ablab.plan.graph import Plan
from ablab.store.layout import Store
from ablab.study.schema import Study

__all__ = ["AuditView", "Check", "audit"]

Check = Callable[[AuditView], Iterable[Finding]]

_ORDER = {"error": 0, "warning": 1, "note": 2}


def audit(study: Study, *, plan: Plan | None = None, store: Store | None = None) -> list[Finding]:
    """Return all findings about a study.

    Args:
        plan: lets checks see keys, forecasts and which results are there.
        store: where results and probes are read from.
    """
    checks, derivations = _of_task(study)
    view = AuditView(study, plan=plan, store=store, derivations=derivations)
    found = [accepted(study, each) for check in (*CHECKS, *checks) for each in check(view)]
    unique = {(each.id, each.where, each.message): each for each in found}
    return sorted(unique.values(), key=lambda f: (f.accepted is not None, not f.checked, _ORDER[f.severity]))


def accepted(study: Study, found: Finding) -> Finding:
    """Return the finding with the author's reason, where the study accepts `id` or `id@where`."""
    for name in (f"{found.id}@{found.where}", found.id):
        if name in study.accept:
            return found.model_copy(update={"accepted": study.accept[name] or "accepted by the study"})
    return found


def _of_task(study: Study) -> tuple[tuple[Check, ...], Derivations]:
    """Return the task's own checks and derivations; none where it declares none."""
    if study.task.audits is None:
        return (), {}
    module, _, attribute = study.task.audits.partition(":")
    loaded = import_module(module)
    checks = cast(tuple[Check, ...], tuple(getattr(loaded, attribute)))
    return checks, cast(Derivations, getattr(loaded, "DERIVED", {}))
