"""Doing rehearsals and probes: starting those whose inputs are there, and what follows their ends.

Which there are is `rehearsals`' business; a failing one fails every run of its configuration before it began.
"""

from __future__ import annotations

import shutil
import time

from ablab.contract.failure import EXIT_CLAIMED, DiskFullError
from ablab.launch.aftermath import Aftermath
from ablab.launch.control import Control
from ablab.launch.crew import Job, living_holder
from ablab.launch.desk import Desk
from ablab.launch.devices import Busy
from ablab.launch.executors.base import Exit
from ablab.launch.failures import Decision, Ending
from ablab.launch.rehearsals import Entry, Rehearsals
from ablab.launch.sending import Sender
from ablab.store.layout import RunFolder


class Rehearser:
    """Does the rehearsals of a launch.

    Args:
        rehearsals: what to rehearse.
        desk: the runs.
        sender: sends workers out.
        aftermath: decides on failures.
        control: whether the launch is stopping.
    """

    def __init__(
        self, rehearsals: Rehearsals, *, desk: Desk, sender: Sender, aftermath: Aftermath, control: Control
    ) -> None:
        self.rehearsals = rehearsals
        self._desk = desk
        self._sender = sender
        self._aftermath = aftermath
        self._control = control
        self._began = time.time()

    def take(self, rehearsals: Rehearsals) -> None:
        """Go on with the rehearsals of a new plan; what is known of a configuration stays."""
        known = self.rehearsals.entries
        self.rehearsals = rehearsals
        rehearsals.entries.update(known)

    def digest(self, key: str) -> str:
        """Return the configuration of a run that a rehearsal stands for; empty without one."""
        return self.rehearsals.of_run.get(key, "")

    @property
    def waits(self) -> bool:
        """Whether something could be rehearsed now."""
        return any(True for _ in self.rehearsals.startable(self._desk.is_done, self._desk.is_dead))

    @property
    def under_way(self) -> bool:
        """Whether long runs have to wait for rehearsals."""
        return self.rehearsals.under_way(self._desk.is_done, self._desk.is_dead)

    def holds_back(self, key: str) -> bool:
        """Whether a run has to wait for rehearsals."""
        return key in self.rehearsals.long and self.under_way

    def fill(self) -> None:
        """Start what there is a place for."""
        for entry in self.rehearsals.startable(self._desk.is_done, self._desk.is_dead):
            if entry.not_before <= time.monotonic() and not self._begin(entry):
                return

    def ended(self, job: Job, ended: Exit) -> None:
        """Act on the end of a rehearsal."""
        entry, desk = self.rehearsals.entries[job.rehearsal], self._desk
        if job.folder.done:
            desk.own.give(job.name)
            self._passed(entry, "passed")
            return
        entry.status = "pending"
        if ended.code == EXIT_CLAIMED:
            entry.not_before = time.monotonic() + desk.options.poll
            return
        ending = self._aftermath.ending(job, ended)
        if self._control.stopping or ending.kind == "stopped":
            return
        decision = self._aftermath.decide(job, ending)
        desk.say("failure", f"{self._title(entry)}: {ending.kind}: {ending.message}; {decision.resolution}", job.name)
        if decision.action == "stop":
            desk.own.give(job.name)
            self._failed(entry, ending, decision)
            return
        entry.not_before = time.monotonic() + decision.delay
        if decision.action == "pause":
            desk.pause(None, job.folder, ending.message)

    def _begin(self, entry: Entry) -> bool:
        """Start the rehearsal of a configuration; False when there is no place for it now."""
        desk, folder = self._desk, entry.folder
        run = desk.run(entry.key)
        name = f"{folder.path.parent.name}/{folder.name}"
        wanted = self._sender.rehearsal_resources(run, entry.digest)
        if not desk.places.room(wanted):
            return False
        if not desk.own.take(name) or living_holder(folder) is not None:
            # Another launch is at it: look again in a while.
            desk.own.give(name)
            entry.not_before = time.monotonic() + desk.options.poll
            return True
        if folder.done and folder.result_path.stat().st_mtime > self._began:
            desk.own.give(name)
            self._passed(entry, "passed in another launch")
            return True
        placed = desk.places.take(name, wanted)
        if isinstance(placed, Busy):
            desk.own.give(name)
            desk.say_busy(run, placed)
            return False
        job = Job(name=name, key=entry.key, folder=folder, attempt=0, resources=placed, rehearsal=entry.digest)
        return self._send(entry, job)

    def _send(self, entry: Entry, job: Job) -> bool:
        desk = self._desk
        entry.status = "running"
        try:
            _clear(entry.folder)
            inputs = self.rehearsals.inputs(entry, desk.is_done)
            self._sender.send(job, self._title(entry), mode=entry.mode, inputs=inputs)
        except DiskFullError as error:
            entry.status = "pending"
            desk.places.give(job.name)
            desk.pause(None, entry.folder, str(error))
            return False
        except OSError as error:
            desk.places.give(job.name)
            self.ended(job, Exit(code=None, kind="crash", message=f"no worker could be started: {error}"))
        return True

    def _passed(self, entry: Entry, how: str) -> None:
        entry.status = "passed"
        self.rehearsals.learn(entry)
        self._desk.say("rehearsed", f"{self._title(entry)} {how}", entry.folder.name)

    def _failed(self, entry: Entry, ending: Ending, decision: Decision) -> None:
        """Fail every run of a configuration before it began, and say why in their folders."""
        desk = self._desk
        what = "probe" if entry.mode == "probe" else "rehearsal"
        message = f"{what} failed: {ending.kind}: {ending.message}"
        entry.status, entry.message = "failed", message
        keys = [key for key in self.rehearsals.runs_of(entry.digest) if key in desk.board and not desk.is_done(key)]
        if not keys:
            desk.outcome.failed[entry.folder.name] = message
        for key in keys:
            folder = desk.folder(key)
            if key == entry.key:
                desk.records.issue(folder, ending, f"{decision.resolution} (found by the {what}; nothing else was run)")
            desk.records.state(folder, "failed", kind=ending.kind, message=message)
            desk.fail(key, message)

    def _title(self, entry: Entry) -> str:
        run = self._desk.run(entry.key)
        return f"{run.experiment} {run.stage.name}: {'probe' if entry.mode == 'probe' else 'rehearsal'}"


def _clear(folder: RunFolder) -> None:
    """Remove what an earlier rehearsal left, so that this one starts from nothing; attempts and their logs stay."""
    folder.create()
    folder.result_path.unlink(missing_ok=True)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
