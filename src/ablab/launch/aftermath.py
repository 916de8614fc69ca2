"""What follows when a worker has ended: done, another attempt, a wait, or the end of its run.

Carries out what `ablab.launch.failures` decides, and records every failure with its resolution.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from ablab.contract.failure import EXIT_CLAIMED
from ablab.launch.control import Control
from ablab.launch.crew import Job
from ablab.launch.desk import Desk
from ablab.launch.endings import read_ending
from ablab.launch.executors.base import Exit
from ablab.launch.failures import Decision, Ending, History, decide
from ablab.launch.processes import KernelKills
from ablab.launch.sending import Sender
from ablab.plan.graph import Run

#: How attempts end that a request to stop has ended.
_BY_REQUEST = frozenset({"stopped", "killed", "time-limit", "lost"})


class Aftermath:
    """Acts on the ends of attempts.

    Args:
        desk: the runs.
        sender: keeps what was learnt for the next attempt, and adopts workers that were faster than ours.
        control: whether the launch is stopping.
        finished: told of each run that is done.
    """

    def __init__(self, desk: Desk, sender: Sender, control: Control, *, finished: Callable[[str, str], None]) -> None:
        self._desk = desk
        self._sender = sender
        self._control = control
        self._finished = finished
        self._histories: dict[str, History] = {}
        self._kernel_kills = KernelKills()

    def ended(self, job: Job, ended: Exit) -> None:
        """Act on the end of a worker at a run."""
        if job.folder.done or self._desk.is_done(job.key):
            self._finished(job.key, "done")
            return
        if ended.code == EXIT_CLAIMED:
            # A worker of a launcher that died just then claimed the run before ours did.
            if not self._sender.adopt_living(job.key):
                self._desk.delay(job.key, self._desk.options.poll)
            return
        ending = self.ending(job, ended)
        if ending.kind == "stopped" or (self._control.stopping and ending.kind in _BY_REQUEST):
            self._desk.stop(job.key, job.folder, ending.message)
            return
        self._act(job, ending, self.decide(job, ending))

    def ending(self, job: Job, ended: Exit) -> Ending:
        """Return how an attempt ended; a kill that the kernel counts as out of memory is that."""
        if self._control.stopping and ended.code != 0:
            message = "ended by the request to stop, before it could leave a record"
            return read_ending(job.folder, job.attempt, Exit(code=ended.code, kind="stopped", message=message))
        if ended.code == -signal.SIGKILL and self._kernel_kills.grew():
            message = "the kernel killed the worker because the memory of this machine (or container) ran out"
            ended = Exit(code=ended.code, kind="out-of-memory", message=message)
        return read_ending(job.folder, job.attempt, ended)

    def decide(self, job: Job, ending: Ending) -> Decision:
        """Return what follows, in the light of what happened to the run before; savings are kept."""
        run: Run = self._desk.run(job.key)
        history = self._histories.setdefault(job.name, History())
        decision = decide(ending, history, stage=run.stage, resources=job.resources)
        self._sender.save(job.rehearsal or job.name, decision.resources)
        return decision

    def _act(self, job: Job, ending: Ending, decision: Decision) -> None:
        desk, run = self._desk, self._desk.run(job.key)
        desk.records.issue(job.folder, ending, decision.resolution)
        what = f"{ending.kind}: {ending.message or 'no message'}"
        desk.say("failure", f"{desk.title(run)}: {what}; {decision.resolution}", run.name)
        if decision.action == "stop":
            desk.records.state(job.folder, "failed", kind=ending.kind, message=ending.message)
            desk.fail(job.key, ending.message or ending.kind)
        elif self._control.stopping:
            desk.stop(job.key, job.folder, ending.message)
        elif decision.action == "pause":
            desk.pause(job.key, job.folder, ending.message)
        elif decision.action == "wait":
            desk.records.state(job.folder, "waiting", kind=ending.kind, message=ending.message)
            desk.delay(job.key, decision.delay)
        else:
            desk.release([job.key])
