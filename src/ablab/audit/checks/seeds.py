"""Seeds: one run says nothing about noise, and unpaired seeds add the noise of the data to every difference."""

from __future__ import annotations

from collections.abc import Iterable

from ablab.audit.findings import finding, listed, place
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding
from ablab.study.schema import Comparison, Experiment, Stage

#: Seeds below which an interval is too wide to decide most questions: at two, t is 12.7.
ENOUGH = 3


def draws(stage: Stage) -> bool:
    """Whether a stage draws from the seed."""
    seeded = stage.spec.seeded
    return seeded(stage.sections, stage.parameters) if callable(seeded) else seeded


def is_random(view: AuditView, experiment: Experiment) -> bool:
    """Whether an arm depends on the seed, by its own stages or through those it reads."""
    from ablab.audit.training import lineage

    return any(draws(stage) for _, stage in lineage(view.study, experiment))


def too_few(view: AuditView) -> Iterable[Finding]:
    """Warnings: comparisons with one seed, or fewer than `ENOUGH`, where anything is random."""
    for index, comparison in view.comparisons():
        random_arms = [arm for arm in view.arms(comparison) if is_random(view, arm)]
        if not random_arms:
            continue
        counts = {arm.name: len(view.seeds(arm)) for arm in random_arms}
        single = [name for name, count in counts.items() if count == 1]
        few = [name for name, count in counts.items() if 1 < count < ENOUGH]
        evidence = {name: list(view.seeds(view.study.experiments[name])) for name in counts}
        if single:
            yield finding(
                view,
                "single-seed",
                "warning",
                place(index, comparison),
                f"one seed each ({listed(single)}): no interval can be drawn, so the comparison stays undecided",
                remedy="run at least three paired seeds",
                evidence=evidence,
                subjects=tuple(single),
                comparison=comparison,
            )
        if few:
            yield finding(
                view,
                "few-seeds",
                "warning",
                place(index, comparison),
                f"fewer than {ENOUGH} seeds ({listed(few)}): with two, the 95 % interval is 12.7 standard errors wide "
                "on either side",
                remedy="run at least three paired seeds",
                evidence=evidence,
                subjects=tuple(few),
                comparison=comparison,
            )


def unpaired(view: AuditView) -> Iterable[Finding]:
    """Warnings: variants whose seeds are not those of their baseline."""
    for index, comparison in view.comparisons():
        baseline = view.study.experiments[comparison.baseline]
        ours = set(view.seeds(baseline))
        for arm in view.arms(comparison, controls=True)[1:]:
            theirs = set(view.seeds(arm))
            if ours != theirs and is_random(view, arm) and is_random(view, baseline):
                yield _unpaired(view, index, comparison, arm, ours, theirs)


def _unpaired(
    view: AuditView, index: int, comparison: Comparison, arm: Experiment, ours: set[int], theirs: set[int]
) -> Finding:
    common = sorted(ours & theirs)
    left_out = sorted(ours ^ theirs)
    return finding(
        view,
        "unpaired-seeds",
        "error" if not common else "warning",
        place(index, comparison, arm.name),
        f"{arm.name} and {comparison.baseline} share {len(common)} of their seeds; "
        f"seeds {listed([str(seed) for seed in left_out])} have no partner and do not count",
        remedy="give both arms the same seeds",
        evidence={comparison.baseline: sorted(ours), arm.name: sorted(theirs)},
        subjects=(comparison.baseline, arm.name),
        comparison=comparison,
    )


CHECKS = (too_few, unpaired)
