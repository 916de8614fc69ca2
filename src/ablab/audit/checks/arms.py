"""Arms: failed and unfinished ones, and planned arms inside comparisons, so that gaps in the evidence have names."""

from __future__ import annotations

from collections.abc import Iterable

from ablab.audit.findings import finding, listed, not_checked, place
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding


def failed(view: AuditView) -> Iterable[Finding]:
    """Warnings: arms with a failed run; with its kind where the store knows it."""
    for experiment in view.study.experiments.values():
        broken: dict[str, str] = {}
        for seed in view.seeds(experiment):
            for run in view.runs(experiment, seed=seed):
                if run.status == "failed":
                    state = view.store.run(run.name).read_state() if view.store is not None else None
                    broken[f"{run.stage.name}, seed {seed}"] = (state.kind if state is not None else None) or "failed"
        if broken:
            told = "; ".join(f"{where}: {kind}" for where, kind in broken.items())
            yield finding(
                view,
                "arm-failed",
                "warning",
                f"experiments.{experiment.name}",
                f"{experiment.name} failed ({told}); a verdict without these seeds rests on survivors",
                remedy="see `ablab logs`, mend the cause and run again",
                evidence=broken,
                subjects=(experiment.name,),
            )


def unfinished(view: AuditView) -> Iterable[Finding]:
    """Notes: comparisons some of whose arms are done while others are not."""
    if not view.has_results:
        return
    for index, comparison in view.comparisons():
        open_: dict[str, int] = {}
        for arm in view.arms(comparison, controls=True):
            left = sum(run.status not in ("done", "planned") for run in view.runs(arm))
            if left and not arm.planned:
                open_[arm.name] = left
        if open_:
            yield finding(
                view,
                "arms-unfinished",
                "note",
                place(index, comparison),
                f"still to run: {listed([f'{name} ({count} runs)' for name, count in open_.items()])}",
                remedy="verdicts until then are provisional",
                evidence=open_,
                subjects=tuple(open_),
                comparison=comparison,
            )


def planned(view: AuditView) -> Iterable[Finding]:
    """Notes: arms of a comparison that are shown and never started."""
    for index, comparison in view.comparisons():
        names = [arm.name for arm in view.arms(comparison) if arm.planned]
        if names:
            yield finding(
                view,
                "planned-arm",
                "warning" if comparison.baseline in names else "note",
                place(index, comparison),
                f"{listed(names)} {'is' if len(names) == 1 else 'are'} planned and not run",
                remedy="remove `planned: true` to run them",
                subjects=tuple(names),
                comparison=comparison,
            )


def before_results(view: AuditView) -> Iterable[Finding]:
    """Notes: what only finished runs can show, while there are none."""
    if not view.has_results:
        yield not_checked(
            view,
            "results-not-checked",
            "experiments",
            "identical results, shared machines, numerics, library versions and what arms really saw are known once "
            "runs are done",
            remedy="run the study",
        )


CHECKS = (failed, unfinished, planned, before_results)
