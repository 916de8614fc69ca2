"""Storage: checkpoints that would fill the disk. One log ended with more than 100 of them, about 200 GB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ablab.audit.findings import finding, listed, not_checked
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding
from ablab.plan.estimate import probed_bytes
from ablab.plan.graph import Run
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
    sizes = {run.key: bytes_of(view, run) for run in left}
    need, free = sum(size or 0 for size in sizes.values()), disk_free(view.store.root)
    if need > TIGHT * free:
        yield _too_much(view, view.store.root, left, sizes, need, free)
    unknown = [run for run in left if sizes[run.key] is None and run.stage.spec.makes_checkpoints]
    if unknown:
        names = tuple(dict.fromkeys(run.experiment for run in unknown))
        yield not_checked(
            view,
            "checkpoints-exceed-disk",
            "retention",
            f"the size of a checkpoint of {listed(names)} is not known before one is written",
            subjects=names,
        )


def bytes_of(view: AuditView, run: Run) -> int | None:
    """Return the disk a run will leave: as the plan forecasts it, else one derived checkpoint times those kept."""
    if run.bytes is not None or not run.stage.spec.makes_checkpoints:
        return run.bytes
    size = view.derived(view.study.experiments[run.experiment], "checkpoint.bytes")
    return None if size is None else probed_bytes({"checkpoint.bytes": size}, run, view.study.retention)


def _too_much(
    view: AuditView, root: Path, left: list[Run], sizes: Mapping[str, int | None], need: int, free: int
) -> Finding:
    over = need > free
    largest = sorted(left, key=lambda run: -(sizes[run.key] or 0))[:3]
    return finding(
        view,
        "checkpoints-exceed-disk" if over else "disk-tight",
        "error" if over else "warning",
        "retention",
        f"what is left to run will leave {need / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free at {root}",
        remedy="keep fewer checkpoints (retention.best, retention.every, checkpoints.keep_every), or free the disk "
        "with `ablab gc`",
        evidence={"bytes": need, "free": free, "largest": {run.name: sizes[run.key] for run in largest}},
        subjects=tuple(dict.fromkeys(run.experiment for run in largest)),
    )


CHECKS = (disk,)
