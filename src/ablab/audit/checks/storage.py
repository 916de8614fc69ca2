"""Storage: checkpoints that would fill the disk. One log ended with more than 100 of them, about 200 GB."""

from __future__ import annotations

from collections.abc import Iterable

from ablab.audit.findings import finding, not_checked
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding
from ablab.store.retention import disk_free

#: Share of the free disk from which a forecast is worth a word.
TIGHT = 0.8
GIB = 2**30


def disk(view: AuditView) -> Iterable[Finding]:
    """Errors: a plan that leaves more bytes than are free; warnings: one that leaves little."""
    if view.plan is None or view.store is None:
        yield not_checked(
            view, "checkpoints-exceed-disk", "retention", "the plan's bytes are not known", remedy="plan the study"
        )
        return
    left = [run for run in view.plan.runs.values() if run.status not in ("done", "planned")]
    unknown = [run.experiment for run in left if run.bytes is None and run.stage.spec.makes_checkpoints]
    need, free = view.plan.bytes_left, disk_free(view.store.root)
    if need is not None and need > TIGHT * free:
        over = need > free
        biggest = sorted((run for run in left if run.bytes), key=lambda run: -(run.bytes or 0))[:3]
        yield finding(
            view,
            "checkpoints-exceed-disk" if over else "disk-tight",
            "error" if over else "warning",
            "retention",
            f"what is left to run will write {need / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free at "
            f"{view.store.root}",
            remedy="keep fewer checkpoints (retention.best, retention.every, checkpoints.keep_every), or free the disk "
            "with `ablab gc`",
            evidence={
                "bytes": need,
                "free": free,
                "largest": {run.name: run.bytes for run in biggest},
            },
            subjects=tuple(dict.fromkeys(run.experiment for run in biggest)),
        )
    if unknown or (need is None and left):
        names = tuple(dict.fromkeys(unknown))
        yield not_checked(
            view,
            "checkpoints-exceed-disk",
            "retention",
            f"checkpoint sizes of {len(names) or len(left)} arms are not known before one is written",
            subjects=names,
        )


CHECKS = (disk,)
