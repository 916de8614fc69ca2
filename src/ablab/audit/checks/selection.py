"""Selection: the best of many looks at a validation set is better than the model is."""

from __future__ import annotations

from collections.abc import Iterable

from ablab.audit.findings import finding, place
from ablab.audit.training import TrainingStage, setting_of
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding
from ablab.study.schema import Comparison, Experiment

#: Looks from which a best value is a warning rather than a note.
MANY = 10


def best_of_many(view: AuditView) -> Iterable[Finding]:
    """Warnings: a verdict on the best of many validations, on the split that chose it."""
    for index, comparison in view.comparisons():
        looks = {}
        for arm in view.arms(comparison):
            stage = _chosen_by(arm, comparison, view.training(arm))
            if stage is not None and stage.validations is not None and stage.validations > 1:
                looks[arm.name] = stage.validations
        if not looks:
            continue
        most = max(looks.values())
        yield finding(
            view,
            "best-of-many-looks",
            "warning" if most >= MANY else "note",
            place(index, comparison),
            f"{comparison.metric} is the best of {most} looks at the validation set that chose it, which flatters "
            "every arm, the noisiest most",
            remedy="compare the last value, or evaluate the chosen checkpoint on a split that chose nothing",
            evidence={"looks": looks},
            subjects=tuple(looks),
            comparison=comparison,
        )
        if len(set(looks.values())) > 1:
            yield finding(
                view,
                "looks-differ",
                "warning",
                place(index, comparison),
                f"arms take the best of different numbers of looks: "
                f"{', '.join(f'{name} {count}' for name, count in looks.items())}",
                remedy="validate every arm equally often",
                evidence={"looks": looks},
                subjects=tuple(looks),
                comparison=comparison,
            )


def _chosen_by(arm: Experiment, comparison: Comparison, stages: tuple[TrainingStage, ...]) -> TrainingStage | None:
    """Return the training stage whose validations chose the compared value; None where nothing was chosen by it."""
    name, _, mark = comparison.metric.partition("@")
    if not stages:
        return None
    if mark == "best" or (not mark and comparison.at == "best"):
        return stages[-1]
    # The last value of an evaluation of the best checkpoint, on the split that chose that checkpoint.
    for stage in arm.stages:
        if setting_of(stage.parameters, "split") not in (None, name.partition("/")[0]):
            continue
        for need in stage.needs:
            source = next((each for each in stages if each.stage.name == need.stage), None)
            chosen_on = setting_of(source.stage.parameters, "checkpoints.metric") if source is not None else None
            if need.checkpoint == "best" and chosen_on and chosen_on.partition("/")[0] == name.partition("/")[0]:
                return source
    return None


def early_stopping(view: AuditView) -> Iterable[Finding]:
    """Notes: early stopping lets the validation set set each arm's length."""
    for index, comparison in view.comparisons():
        stopping = [
            arm.name
            for arm in view.arms(comparison)
            if any(setting_of(stage.stage.parameters, "early_stopping") is not None for stage in view.training(arm))
        ]
        if stopping:
            yield finding(
                view,
                "early-stopping",
                "note",
                place(index, comparison),
                f"early stopping decides how long {', '.join(stopping)} train, so budgets differ by what is seen",
                remedy="report the steps beside the values, or train all arms for the same steps",
                subjects=tuple(stopping),
                comparison=comparison,
            )


CHECKS = (best_of_many, early_stopping)
