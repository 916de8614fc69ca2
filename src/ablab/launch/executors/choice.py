"""The executor that a study asks for; the libraries of ray and slurm are imported only when they are chosen."""

from __future__ import annotations

from pathlib import Path

from ablab.launch.executors.base import Executor, Program
from ablab.launch.executors.local import LocalExecutor
from ablab.study.schema import Compute


def make_executor(compute: Compute, folder: Path, *, program: Program | None = None) -> Executor:
    """Return the executor of a study.

    Args:
        compute: the study's wishes.
        folder: launch folder, for the executor's own files.
        program: what to start on an order.

    Raises:
        ConfigError: its library or its scheduler is not there.
    """
    if compute.executor == "ray":
        from ablab.launch.executors.ray import RayExecutor

        return RayExecutor(program=program)
    if compute.executor == "slurm":
        from ablab.launch.executors.slurm import SlurmExecutor

        return SlurmExecutor(folder=folder / "slurm", parameters=compute.slurm, program=program)
    return LocalExecutor(program=program, log=folder / "templates.log")
