"""What tests of full profiles share: a hub cache with the names of a study, and runs done as a launcher orders them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablab.contract.failure import EXIT_DONE
from ablab.contract.order import Resources
from ablab.launch.orders import Common, build_order
from ablab.store.layout import RunFolder, Store
from ablab.worker.main import execute


def new_repository(root: Path, name: str, *, revision: str) -> Path:
    """Return the empty snapshot of a repository in a hub cache, where its branch main leads."""
    folder = root / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    return snapshot


def run_plan(plan: Any, store: Store, *, study_folder: Path) -> Iterator[tuple[Any, RunFolder]]:
    """Do the runs of a plan that have no result yet, in this process; yield every run with its folder."""
    common = Common(study_folder=str(study_folder))
    for run in plan.runs.values():
        folder = store.run(run.name)
        if folder.read_result() is None:
            order = build_order(run, plan=plan, store=store, common=common, resources=Resources(threads=1))
            folder.create().write_order(order)
            assert execute(folder.order_path) == EXIT_DONE, folder.read_state()
        yield run, folder
