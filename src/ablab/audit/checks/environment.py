"""Environment: arms of a comparison that ran on other devices, precisions or library versions."""

from __future__ import annotations

from collections.abc import Iterable

from ablab.audit.findings import finding, place
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding
from ablab.contract.order import Numerics
from ablab.study.schema import Experiment

#: Fields of the numerics record that can shift results beyond the last bits.
TELLING = ("device", "device_name", "precision", "compile", "attention", "world_size")
BITS_ONLY = ("threads",)


def numerics_differ(view: AuditView) -> Iterable[Finding]:
    """Warnings: training runs of a comparison on different numerics; notes: where only thread counts differ."""
    for index, comparison in view.comparisons():
        records = {arm.name: _records(view, arm, tensors=True) for arm in view.arms(comparison, controls=True)}
        for names, severity in ((TELLING, "warning"), (BITS_ONLY, "note")):
            found = {}
            for name in names:
                values = {arm: sorted({str(getattr(r, name)) for r in own}) for arm, own in records.items() if own}
                if len({value for own in values.values() for value in own}) > 1:
                    found[name] = values
            if found:
                yield finding(
                    view,
                    "numerics-differ",
                    "warning" if severity == "warning" else "note",
                    place(index, comparison),
                    f"runs of this comparison differ in {', '.join(found)}",
                    remedy="run all arms on one kind of device with the same settings",
                    evidence=found,
                    subjects=tuple(arm for arm, own in records.items() if own),
                    comparison=comparison,
                )


def versions_differ(view: AuditView) -> Iterable[Finding]:
    """Warnings: library versions that changed between the runs of a comparison."""
    for index, comparison in view.comparisons():
        versions: dict[str, dict[str, list[str]]] = {}
        for arm in view.arms(comparison, controls=True):
            for record in _records(view, arm):
                for library, version in record.versions.items():
                    users = versions.setdefault(library, {}).setdefault(version, [])
                    if arm.name not in users:
                        users.append(arm.name)
        found = {library: users for library, users in versions.items() if len(users) > 1}
        if found:
            told = "; ".join(f"{library} {' and '.join(sorted(users))}" for library, users in found.items())
            yield finding(
                view,
                "versions-differ",
                "warning",
                place(index, comparison),
                f"library versions changed between the runs of this comparison: {told}",
                remedy="run the older arms again, or compare arms of one version only",
                evidence=found,
                subjects=tuple(
                    dict.fromkeys(name for users in found.values() for own in users.values() for name in own)
                ),
                comparison=comparison,
            )


def _records(view: AuditView, experiment: Experiment, *, tensors: bool = False) -> list[Numerics]:
    """Return the numerics of an arm's finished runs that yield metrics; with `tensors`, of those that want a device.

    A baseline of words has neither a precision nor a device: its record says what was the default there.
    """
    specs = ((done.result.numerics, done.run.stage.spec) for done in view.done(experiment))
    return [numerics for numerics, spec in specs if spec.metrics and (spec.accelerator or not tensors)]


CHECKS = (numerics_differ, versions_differ)
