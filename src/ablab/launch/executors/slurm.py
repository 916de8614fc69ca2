"""Workers as SLURM jobs, through submitit: one job a run, in the cluster's queue, on its own node.

The store has to be on a file system that the nodes share. GPUs are the cluster's to assign; a time limit is
announced to the worker, which writes a checkpoint and ends, and the next job goes on from there.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablab.contract.failure import ConfigError, FailureKind
from ablab.contract.order import Resources
from ablab.launch.executors.base import Exit, Handle, Program, log_of
from ablab.launch.executors.remote import run_as_job

#: Seconds between calls of sacct, which asks the cluster's data base about all jobs at once.
EVERY = 15.0
#: Time limit of a job where the study sets none, in minutes; a run that needs longer takes several jobs.
MINUTES = 240
#: submitit's general names of parameters, by SLURM's own.
_NAMES = {"timeout_min": "time", "tasks_per_node": "ntasks_per_node", "name": "job_name"}
#: Seconds a result may need to become visible through a shared file system.
_LAG = 30.0

_KINDS: dict[str, FailureKind] = {
    "TIMEOUT": "time-limit",
    "DEADLINE": "time-limit",
    "OUT_OF_MEMORY": "out-of-memory",
    "NODE_FAIL": "lost",
    "BOOT_FAIL": "lost",
    "PREEMPTED": "lost",
    "REVOKED": "lost",
    "CANCELLED": "killed",
    "FAILED": "crash",
    "COMPLETED": "lost",
}


class SlurmExecutor:
    """Starts workers as SLURM jobs.

    Args:
        folder: where submitit keeps scripts, pickled calls and its logs.
        parameters: `compute.slurm` of the study: what submitit's update_parameters takes (partition, time, mem, ...).
        program: what to start.
        every: seconds between questions to the cluster.

    Raises:
        ConfigError: submitit or SLURM is not there, or a parameter that submitit does not know.
    """

    local = False

    def __init__(
        self,
        *,
        folder: Path,
        parameters: Mapping[str, Any],
        program: Program | None = None,
        every: float = EVERY,
    ) -> None:
        try:
            from submitit.slurm.slurm import SlurmExecutor as Submitit
        except ImportError:
            raise ConfigError(
                "compute.executor is slurm, but submitit is not installed: pip install ablab[slurm]"
            ) from None
        self._program = program or Program()
        named = {name.removeprefix("slurm_"): value for name, value in parameters.items()}
        self._parameters = {"time": MINUTES} | {_NAMES.get(name, name): value for name, value in named.items()}
        self._every = every
        self._asked = 0.0
        self._states: dict[str, str] = {}
        self._told: dict[Handle, FailureKind] = {}
        self._jobs: dict[Handle, Any] = {}
        self._over: dict[Handle, float] = {}
        try:
            self._submitit = Submitit(folder=folder, max_num_timeout=0)
            self._submitit.update_parameters(**self._parameters)
        except RuntimeError:
            raise ConfigError("compute.executor is slurm, but there is no srun on the PATH of this machine") from None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"compute.slurm: {error}") from None

    def start(self, order: Path, *, resources: Resources, env: Mapping[str, str]) -> Handle:
        """Put a job into the queue."""
        command = self._program.command(order, processes=resources.world_size)
        variables = {"OMP_NUM_THREADS": str(resources.threads), "OMP_WAIT_POLICY": "passive", **env}
        needed: dict[str, Any] = {"cpus_per_task": resources.threads * resources.world_size}
        if resources.devices:
            needed["gpus_per_node"] = len(resources.devices)
        self._submitit.update_parameters(**{"job_name": f"ablab-{order.parent.name}", **needed, **self._parameters})
        try:
            job = self._submitit.submit(run_as_job, command, variables, str(log_of(order)))
        except subprocess.CalledProcessError as error:
            raise ConfigError(f"sbatch refused {order}: {error}") from None
        handle = Handle(order=order)
        self._jobs[handle] = job
        return handle

    def poll(self, handle: Handle) -> Exit | None:
        """Return how the job ended: by its result, else by what the cluster says of it."""
        if handle.exit is None:
            handle.exit = self._look(handle)
            if handle.exit is not None:
                del self._jobs[handle]
        return handle.exit

    def signal(self, handle: Handle, number: int) -> None:
        """Hand a signal to the job; one that waits in the queue is cancelled."""
        if self.poll(handle) is not None:
            return
        job = self._jobs[handle]
        self._ask()
        waits = self._state(job) in {"PENDING", "CONFIGURING", "REQUEUED"}
        # A signal that comes before the worker listens ends the job without a word.
        self._told[handle] = "killed" if number == signal.SIGKILL else "stopped"
        how = [] if waits or number == signal.SIGKILL else [f"--signal={signal.Signals(number).name}"]
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["scancel", *how, job.job_id], check=True, capture_output=True)
        if waits:
            handle.exit = Exit(code=None, kind="stopped", message=f"job {job.job_id} was taken out of the queue")
            del self._jobs[handle]

    def waitables(self) -> Sequence[int]:
        """Return nothing: the cluster has to be asked."""
        return ()

    def close(self) -> None:
        """Leave the jobs to the cluster."""
        self._jobs.clear()

    def _look(self, handle: Handle) -> Exit | None:
        job = self._jobs[handle]
        if job.paths.result_pickle.exists():
            return self._result(job)
        state = self._state(job)
        if state not in _KINDS:
            return None
        # The result of a job that is over may still be on its way through the shared file system.
        since = self._over.setdefault(handle, time.monotonic())
        if state in {"COMPLETED", "FAILED"} and time.monotonic() - since < min(_LAG, 4 * self._every):
            return None
        kind = self._told.get(handle, _KINDS[state])
        return Exit(code=None, kind=kind, message=f"SLURM job {job.job_id}: {state}")

    def _state(self, job: Any) -> str:
        """Return the cluster's word for a job's state; asks about all jobs at once, now and then."""
        if time.monotonic() - self._asked >= self._every:
            self._ask()
        return self._states.get(str(job.job_id), "UNKNOWN")

    def _ask(self) -> None:
        """Ask the cluster about our jobs. submitit's own watcher is shared by a whole process and never forgets."""
        self._asked = time.monotonic()
        numbers = ",".join(str(job.job_id) for job in self._jobs.values())
        command = ["sacct", "--noheader", "--parsable2", "-o", "JobID,State", "-j", numbers]
        # A data base that is out of reach for a moment says nothing about the jobs.
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
            for line in told.splitlines():
                number, _, state = line.partition("|")
                if "." not in number and state:
                    # "CANCELLED by 1000" and the like.
                    self._states[number] = state.split()[0]

    def _result(self, job: Any) -> Exit:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            return Exit(code=int(job.result()))
        except (FailedJobError, UncompletedJobError) as error:
            return Exit(code=None, kind="crash", message=str(error))
