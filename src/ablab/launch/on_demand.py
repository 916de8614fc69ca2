"""One piece of work at once, outside any study: an order of its own to a worker in a folder that is thrown away.

Commands that compute on demand (`ablab data`, `search`, `merge`) go this way, so that what they do is what a stage of a
study does, and what goes wrong is told in the same words. The folder stays only where a crash left a log to read.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablab.contract.failure import AblabError, ConfigError, DataError
from ablab.contract.order import Input, Order, Resources
from ablab.contract.result import Result
from ablab.launch.devices import Nvml, choose_gpus
from ablab.launch.endings import read_ending
from ablab.launch.executors.base import Exit, Handle, Program
from ablab.launch.executors.local import LocalExecutor
from ablab.store.layout import RunFolder
from ablab.store.processes import cores

#: Seconds between looks at the worker, and given to it to stop.
_LOOK, _GRACE = 0.05, 10.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the worker made: its result, and its folder while the work is looked at."""

    folder: Path
    result: Result


@contextmanager
def on_demand(
    *,
    task: str,
    kind: str,
    parameters: Mapping[str, Any],
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    inputs: Sequence[Input] = (),
    study_folder: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    devices: Sequence[int] = (),
    revisions: Mapping[str, str] | None = None,
    progress: Callable[[float], None] | None = None,
    beside: Path | None = None,
) -> Iterator[Answer]:
    """Run a stage kind of a task now and yield what it made; its folder is gone afterwards.

    Args:
        task: name of the task; command for kinds that belong to no task.
        kind: stage kind.
        parameters: of the stage, as JSON values.
        sections: of the task, as JSON values.
        inputs: finished runs it reads.
        study_folder: where relative paths start; None is the current folder.
        seed: for kinds that draw from it.
        threads: of the worker; None takes the cores.
        devices: GPUs, by index.
        revisions: of a study's lock file.
        progress: called with the share of work done.
        beside: where the worker's folder is made, for results too large to be copied; None is the system's place.

    Raises:
        ConfigError: there is no such GPU.
        ConfigError, DataError, AblabError: what went wrong in the worker, in its words.
    """
    if devices:
        choose_gpus(Nvml().gpus(), tuple(devices))
    resources = Resources(threads=threads or cores(), devices=tuple(devices))
    folder = Path(tempfile.mkdtemp(prefix=".ablab-" if beside else "ablab-", dir=beside)) / f"{kind}-on-demand"
    order = Order(
        key="on-demand",
        stage=kind,
        kind=kind,
        task=task,
        study="on-demand",
        profile="full",
        experiment="on-demand",
        seed=seed,
        sections={name: dict(section) for name, section in (sections or {}).items()},
        parameters=dict(parameters),
        inputs=tuple(inputs),
        folder=str(folder),
        resources=resources,
        revisions=dict(revisions or {}),
        study_folder=study_folder or str(Path.cwd()),
    )
    run = RunFolder(folder).create()
    keep = False
    try:
        run.write_order(order)
        ended = _wait(run, resources, progress)
        result = run.read_result()
        if result is None:
            error = _failure(run, ended)
            keep = error.kind == "crash"
            raise error
        yield Answer(folder=folder, result=result)
    finally:
        if not keep:
            shutil.rmtree(folder.parent, ignore_errors=True)


def _wait(run: RunFolder, resources: Resources, progress: Callable[[float], None] | None) -> Exit:
    """Start the worker and wait for its end; an interrupt stops it first."""
    executor = LocalExecutor(program=Program(template=None))
    handle = executor.start(run.order_path, resources=resources, env={})
    told = -1.0
    try:
        while (ended := executor.poll(handle)) is None:
            time.sleep(_LOOK)
            state = run.known_state() if progress is not None else None
            share = state.progress if state is not None else None
            if progress is not None and share is not None and share != told:
                progress(share)
                told = share
        return ended
    except BaseException:
        _stop(executor, handle)
        raise
    finally:
        executor.close()


def _stop(executor: LocalExecutor, handle: Handle) -> None:
    executor.signal(handle, signal.SIGTERM)
    limit = time.monotonic() + _GRACE
    while executor.poll(handle) is None:
        if time.monotonic() > limit:
            executor.signal(handle, signal.SIGKILL)
        time.sleep(_LOOK)


def _failure(run: RunFolder, ended: Exit) -> AblabError:
    """Return what went wrong as the error the worker raised."""
    ending = read_ending(run, 1, ended)
    if ending.kind == "config":
        return ConfigError(ending.message, **ending.detail)
    if ending.kind == "data":
        return DataError(ending.message, **ending.detail)
    where = f"; its log is {run.attempt(ending.attempt).log}" if ending.kind == "crash" else ""
    error = AblabError(f"{ending.kind}: {ending.message}{where}", **ending.detail)
    error.kind = ending.kind
    return error
