"""What tests of full profiles share: a hub cache with the names of a study, and runs done as a launcher orders them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from ablab.contract.failure import EXIT_DONE
from ablab.contract.order import Resources
from ablab.launch.orders import Common, build_order
from ablab.store.hub import extend_lock, lock_path
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


@contextmanager
def offline_hub(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Within it, the hub is a cache folder and nothing else; what else is patched is given back, and the threads."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        import datasets.config
        import huggingface_hub.constants

        for name, value in (("HF_HUB_CACHE", str(folder)), ("HF_HUB_OFFLINE", "1")):
            patch.setenv(name, value)
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
        for module in (huggingface_hub.constants, datasets.config):
            patch.setattr(module, "HF_HUB_OFFLINE", True)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder.parent / "arrow")
        yield patch
    torch.set_num_threads(threads)


def lock_names(study: Any, path: Path) -> dict[str, str]:
    """Pin every name of a study's hub in the lock file beside it, and return the revisions."""
    references = itertools.chain.from_iterable(
        stage.spec.references(stage.sections, stage.parameters)
        for arm in study.experiments.values() for stage in arm.stages if stage.spec.references
    )  # fmt: skip
    return extend_lock(lock_path(path), references)


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
