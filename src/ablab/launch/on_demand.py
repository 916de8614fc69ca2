"""Work asked for by a command (ask, export, search, merge, data): one worker with an order of its own, waited for.

The order is like a launch's, so the same stage functions do the work; its folder is a scratch one unless the caller
names another. Only the worker imports torch.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ablab.contract.failure import AblabError, ConfigError, DataError, DiskFullError, OutOfMemoryError, StopRequested
from ablab.contract.order import Input, Order, Resources
from ablab.contract.result import Result
from ablab.launch.executors.base import Program
from ablab.store.layout import RunFolder

#: What a failure's kind is raised as; other kinds as plain AblabError.
_ERRORS: dict[str, type[AblabError]] = {
    "config": ConfigError,
    "data": DataError,
    "disk-full": DiskFullError,
    "out-of-memory": OutOfMemoryError,
    "stopped": StopRequested,
}


@contextmanager
def scratch(prefix: str = "ablab-") -> Iterator[Path]:
    """Give a run folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def on_demand_order(
    *,
    task: str,
    kind: str,
    folder: Path,
    parameters: Mapping[str, Any],
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    inputs: tuple[Input, ...] = (),
    like: Order | None = None,
    devices: tuple[int, ...] = (),
    threads: int | None = None,
    study_folder: str | None = None,
) -> Order:
    """Return an order for a command.

    Args:
        task: name of the task whose stage kind it is.
        kind: the stage kind.
        folder: run folder of the work, see `scratch`.
        parameters: of the stage, as a study would write them.
        sections: of the task; None takes those of `like`.
        inputs: finished runs that are read.
        like: order of a run that the work is about: its seed, sections, revisions and places are taken over.
        devices: GPU indices; none is the CPU.
        threads: None takes the cores.
        study_folder: where relative paths start; None takes that of `like`.
    """
    return Order(
        key=kind,
        stage=kind,
        kind=kind,
        task=task,
        study=like.study if like is not None else kind,
        profile=like.profile if like is not None else "full",
        experiment=like.experiment if like is not None else kind,
        seed=like.seed if like is not None else None,
        sections=dict(sections) if sections is not None else dict(like.sections) if like is not None else {},
        parameters=dict(parameters),
        inputs=inputs,
        folder=str(folder),
        resources=Resources(devices=devices, threads=threads or os.cpu_count() or 1),
        revisions=dict(like.revisions) if like is not None else {},
        source=like.source if like is not None and like.source and Path(like.source).is_dir() else None,
        study_folder=study_folder or (like.study_folder if like is not None else None),
    )


def as_input(run: RunFolder, *, checkpoint: str = "last") -> Input:
    """Return a finished run as an input.

    Raises:
        ConfigError: it has no order, or is not finished.
    """
    order = run.read_order()
    if order is None:
        raise ConfigError(f"{run.path} is no run folder")
    if not run.done:
        raise ConfigError(f"{run.name} is not finished; `ablab status` says where it stands")
    return Input(
        reference=order.stage,
        stage=order.stage,
        kind=order.kind,
        key=order.key,
        path=str(run.path),
        checkpoint="best" if checkpoint == "best" else "last",
    )


def compute(order: Order, *, program: Program | None = None) -> Result:
    """Do an order in a worker of its own and return its result; Ctrl-C stops the worker, then this process.

    Raises:
        AblabError: what the worker failed with, by its kind and message.
    """
    run = RunFolder(order.folder).create()
    run.write_order(order)
    threads = str(order.resources.threads)
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": threads}
    if order.resources.devices:
        environment |= {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, order.resources.devices)),
        }
    log = run.path / "worker.log"
    with log.open("ab") as output:
        worker = subprocess.Popen(
            (program or Program()).command(run.order_path),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    with _passing_on(worker):
        code = worker.wait()
    result = run.read_result()
    if code == 0 and result is not None:
        return result
    state = run.read_state()
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    message = (state.message if state is not None else None) or (said[-1] if said else f"the worker ended with {code}")
    raise _ERRORS.get(str(state.kind) if state is not None else "", AblabError)(message)


@contextmanager
def _passing_on(worker: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass an interrupt on to the worker, which stops cleanly; a second one kills it."""
    asked = 0

    def forward(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM if asked == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if worker.poll() is None:
            worker.kill()
            worker.wait()
