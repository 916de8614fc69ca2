"""The workers of a launch: those it started and those it adopted from a launcher that is gone.

Knows processes and executors, and nothing of policies or the order of work.
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ablab.contract.order import Resources
from ablab.launch.executors.base import Executor, Exit, Handle
from ablab.launch.processes import Watch
from ablab.store import processes
from ablab.store.claims import Holder, is_alive, read_holder
from ablab.store.layout import RunFolder


@dataclass(eq=False, kw_only=True)
class Job:
    """A worker at work on a run or a rehearsal.

    Args:
        name: name of the run folder.
        key: key of the run.
        folder: where it works.
        attempt: number of the attempt.
        resources: what it runs with.
        rehearsal: digest of the configuration it rehearses; empty for a run.
        handle: of the executor that started it; None when it was adopted.
        holder: of the claim of an adopted worker.
        watch: of the process of an adopted worker on this machine.
        deadline: Unix time at which it stops by itself.
        placed: whether its process is known to the places.
    """

    name: str
    key: str
    folder: RunFolder
    attempt: int
    resources: Resources
    rehearsal: str = ""
    handle: Handle | None = None
    holder: Holder | None = None
    watch: Watch | None = None
    deadline: float | None = None
    placed: bool = False

    @property
    def pid(self) -> int | None:
        """Its process on this machine, once it is known."""
        if self.handle is not None:
            return self.handle.pid
        return self.watch.pid if self.watch is not None else None


class Crew:
    """All workers of a launch.

    Args:
        executor: what starts them.
        env: variables of every worker.
    """

    def __init__(self, executor: Executor, *, env: Mapping[str, str]) -> None:
        self._executor = executor
        self._env = dict(env)
        self.jobs: dict[str, Job] = {}

    def start(self, job: Job) -> None:
        """Start a worker on the order in the job's folder."""
        job.handle = self._executor.start(job.folder.order_path, resources=job.resources, env=self._env)
        self.jobs[job.name] = job

    def adopt(self, job: Job, holder: Holder) -> None:
        """Look after a worker that holds the claim of a run."""
        job.handle, job.holder = None, holder
        if is_here(holder):
            job.watch = Watch(holder.pid, holder.start)
        self.jobs[job.name] = job

    def ended(self) -> list[tuple[Job, Exit]]:
        """Return the workers that have ended since the last call, and forget them."""
        found = []
        for job in list(self.jobs.values()):
            ended = self._poll(job)
            if ended is not None:
                del self.jobs[job.name]
                if job.watch is not None:
                    job.watch.close()
                found.append((job, ended))
        return found

    def signal(self, number: int, *, stopping_by: float | None = None) -> list[Job]:
        """Send a signal to every worker; return those out of reach on another machine.

        Args:
            number: the signal.
            stopping_by: Unix time; who stops by itself by then is left in peace (a second request to stop would end it
                without a checkpoint).
        """
        unreached = []
        for job in self.jobs.values():
            if stopping_by is not None and job.deadline is not None and job.deadline <= stopping_by:
                continue
            if job.handle is not None:
                self._executor.signal(job.handle, number)
            elif job.watch is not None:
                job.watch.signal(number)
            else:
                unreached.append(job)
        return unreached

    def forget(self, job: Job) -> None:
        """Leave a worker to itself."""
        self.jobs.pop(job.name, None)
        if job.watch is not None:
            job.watch.close()

    def wait(self, seconds: float, *, also: Iterable[int] = ()) -> None:
        """Sleep until a worker may have ended, a descriptor in `also` is readable, or the time is over."""
        poll = select.poll()
        watches = [job.watch.descriptor for job in self.jobs.values() if job.watch and job.watch.descriptor is not None]
        for descriptor in [*also, *watches, *self._executor.waitables()]:
            poll.register(descriptor, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)

    def close(self) -> None:
        """Let go of all workers; those that still run go on."""
        for job in list(self.jobs.values()):
            self.forget(job)
        self._executor.close()

    def _poll(self, job: Job) -> Exit | None:
        if job.handle is not None:
            return self._executor.poll(job.handle)
        if job.watch is not None:
            return Exit(code=None) if job.watch.ended else None
        holder = read_holder(job.folder.claim_path)
        if holder is not None and is_alive(holder):
            return None
        return Exit(code=None, kind="lost", message=f"no sign of life any more of {job.holder}")


def is_here(holder: Holder) -> bool:
    """Whether a claim's holder is a process that we can see."""
    return (holder.host, holder.boot, holder.namespace) == (
        processes.host(),
        processes.boot_id(),
        processes.pid_namespace(),
    )


def living_holder(folder: RunFolder) -> Holder | None:
    """Return who works on a run; None when nobody alive does."""
    holder = read_holder(folder.claim_path)
    return holder if holder is not None and is_alive(holder) else None
