"""The loop of a launch: ready runs in plan order onto free places, until nothing is left to do.

Seed-major order comes with the plan. A run that another launch looks after is watched; one whose launcher is gone is
adopted; none is started twice. Everything that lasts is in the run folders: this object can die at any moment.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from ablab.contract.failure import DiskFullError
from ablab.contract.kinds import is_select
from ablab.contract.order import Numerics, Resources
from ablab.launch.aftermath import Aftermath
from ablab.launch.board import wanted_runs
from ablab.launch.control import Control
from ablab.launch.crew import Crew, Job, living_holder
from ablab.launch.desk import Desk, Outcome
from ablab.launch.devices import Busy
from ablab.launch.executors.base import Exit
from ablab.launch.orders import Common
from ablab.launch.places import Pool
from ablab.launch.rehearsals import Rehearsals
from ablab.launch.rehearser import Rehearser
from ablab.launch.sending import Sender
from ablab.plan.graph import Plan, Run

_POOLS: tuple[Pool, ...] = ("gpu", "cpu")
#: Longest time until the first look at a run that another launch has just begun, in seconds.
_FIRST_LOOK = 0.2

Rehearse = Callable[[Plan, list[str]], Rehearsals]


class Scheduler:
    """One launch at work.

    Args:
        desk: the runs.
        wanted: keys of the runs to do, in order.
        crew: starts and follows workers.
        control: requests to stop.
        common: what all orders share.
        rehearse: returns the rehearsals to do before the long runs of a plan, given the runs to do.
        replan: makes the plan anew once a select run is done; None keeps the plan.
    """

    def __init__(
        self,
        desk: Desk,
        wanted: list[str],
        *,
        crew: Crew,
        control: Control,
        common: Common,
        rehearse: Rehearse,
        replan: Callable[[], Plan] | None = None,
    ) -> None:
        self._desk = desk
        self._crew = crew
        self._control = control
        self._plan_rehearsals = rehearse
        self._replan = replan
        self._sender = Sender(desk, crew, common)
        self._aftermath = Aftermath(desk, self._sender, control, finished=self._finished)
        self._rehearser = Rehearser(
            rehearse(desk.plan, wanted), desk=desk, sender=self._sender, aftermath=self._aftermath, control=control
        )
        self._began = time.time()
        self._watched: dict[str, float] = {}
        self._told_to_stop = self._told_to_die = False
        self._ticked = 0.0

    def run(self) -> Outcome:
        """Work until nothing is left to do, or until a request to stop has been carried out."""
        try:
            self._settle()
            while True:
                self._look()
                self._absorb()
                if self._over():
                    break
                self._fill()
                self._tick()
                self._crew.wait(self._patience(), also=[self._control.descriptor])
            self._rehearser.rehearsals.tidy()
            return self._desk.conclude(self._control.reason or "not started")
        finally:
            self._desk.own.close()
            self._crew.close()

    def _settle(self) -> None:
        """Sort out what is done, what cannot start, and what is under way without us."""
        desk = self._desk
        for key in desk.board.open():
            run = desk.run(key)
            if desk.folder(key).done:
                desk.reuse(key)
            elif run.status == "planned":
                desk.block(key, "planned, never started")
            elif run.unresolved:
                desk.block(key, f"unresolved: {', '.join(run.unresolved)}")
        desk.look_at_gates()
        for key in desk.board.open():
            if desk.run(key).status == "running":
                self._follow(key)

    def _over(self) -> bool:
        """Whether there is nothing left to wait for."""
        if self._crew.jobs:
            return False
        if self._control.stopping:
            return True
        if self._watched or self._desk.waits:
            return False
        return not any(self._desk.first(pool) for pool in _POOLS) and not self._rehearser.waits

    def _patience(self) -> float:
        """Return how long nothing needs to be looked at unless something happens."""
        seconds, next_return = self._desk.options.poll, self._desk.next_return()
        if next_return is not None:
            seconds = min(seconds, next_return - time.monotonic())
        return max(0.0, seconds)

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked >= self._desk.options.poll:
            self._ticked = now
            self._desk.say("tick")

    # --- Looking around -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look at everything that sends no signal: requests, the disk, waits that are over, runs of others."""
        self._control.look()
        if self._control.stopping:
            self._stop()
            return
        self._desk.bring_back()
        now = time.monotonic()
        for key in [key for key, next_look in self._watched.items() if next_look <= now]:
            self._look_at_watched(key)
        if self._desk.held and not self._rehearser.under_way:
            self._desk.release(self._desk.held)
        if self._desk.places.pool is not None:
            self._desk.places.pool.renew()

    def _stop(self) -> None:
        """Ask the workers to stop, or kill them where that was asked for or took too long."""
        say = self._desk.say
        if not self._told_to_stop:
            self._told_to_stop = True
            count = len(self._crew.jobs)
            say("stopping", f"stopping ({self._control.reason}): {count} workers write a checkpoint and end")
            by = time.time() if self._control.reached_until else None
            for job in self._crew.signal(signal.SIGTERM, stopping_by=by):
                say("stopping", f"{job.name}: its worker is {job.holder}, out of reach from here; it goes on")
                self._crew.forget(job)
        if self._control.killing:
            if not self._told_to_die:
                self._told_to_die = True
                say("stopping", "killing the workers; the next launch goes on from their last checkpoints")
            self._crew.signal(signal.SIGKILL)

    def _look_at_watched(self, key: str) -> None:
        """See whether a run that another launch looks after is done, or left to us."""
        desk = self._desk
        desk.find_folder(key)
        run, folder = desk.run(key), desk.folder(key)
        self._watched[key] = time.monotonic() + desk.options.poll
        if not folder.done and not desk.own.take(run.name):
            return
        del self._watched[key]
        desk.places.give(run.name)
        if folder.done:
            self._finished(key, "finished by another launch")
            return
        if self._sender.adopt_living(key):
            return
        state = folder.known_state()
        if state is not None and state.status == "failed" and state.updated > self._began:
            desk.fail(key, f"failed in another launch: {state.message}")
        else:
            desk.release([key])

    def _absorb(self) -> None:
        """Take in the workers that ended, and the processes of those that have one by now."""
        for job, ended in self._crew.ended():
            self._desk.places.give(job.name)
            (self._rehearser if job.rehearsal else self._aftermath).ended(job, ended)
        for job in self._crew.jobs.values():
            self._sender.place(job)

    def _finished(self, key: str, how: str) -> None:
        self._desk.finish(key, how)
        self._desk.look_at_gates()
        if self._replan is not None and is_select(self._desk.run(key).stage.spec):
            plan, options = self._replan(), self._desk.options
            wanted = wanted_runs(plan, only=options.only, seeds=options.seeds)
            self._rehearser.take(self._plan_rehearsals(plan, wanted))
            self._desk.take_plan(plan, wanted)

    # --- Starting -----------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start what there is a place for, rehearsals first."""
        desk = self._desk
        if self._control.stopping or desk.full:
            return
        self._rehearser.fill()
        for pool in _POOLS:
            while not desk.full and (key := desk.first(pool)) is not None:
                if not self._begin(key):
                    break

    def _begin(self, key: str) -> bool:
        """Start, adopt, watch or set aside a ready run; False when there is no place for it now."""
        desk = self._desk
        run, folder = desk.run(key), desk.folder(key)
        if folder.done:
            self._finished(key, "finished by another launch")
            return True
        resources, numerics = self._sender.resources(run, folder, digest=self._rehearser.digest(key))
        if not desk.places.room(resources):
            return False
        if self._rehearser.holds_back(key):
            desk.hold(key)
            return True
        if late := self._too_late(run):
            desk.leave(key, late)
            return True
        if self._follow(key):
            return True
        placed = desk.places.take(run.name, resources)
        if isinstance(placed, Busy):
            desk.own.give(run.name)
            desk.say_busy(run, placed)
            return False
        self._start(key, placed, numerics)
        return True

    def _follow(self, key: str) -> bool:
        """Watch or adopt a run that somebody is at already; False when it is ours and nobody is."""
        desk = self._desk
        owned = desk.own.take(desk.run(key).name)
        desk.find_folder(key)
        run, folder = desk.run(key), desk.folder(key)
        if not owned:
            desk.engaged.add(key)
            self._watched[key] = time.monotonic() + min(_FIRST_LOOK, desk.options.poll)
            self._sender.occupy(key, living_holder(folder))
            desk.say("watched", f"{desk.title(run)}: another launch is at it", run.name)
            return True
        if self._sender.adopt_living(key):
            return True
        if folder.done:
            self._finished(key, "finished by another launch")
            return True
        return False

    def _too_late(self, run: Run) -> str:
        """Return why a run would not end before the time of --until; empty when it would, or nobody knows."""
        until = self._desk.options.until
        if until is None or run.estimate is None:
            return ""
        state = self._desk.folder(run.key).known_state()
        remaining = run.estimate * (1.0 - (state.progress if state is not None else 0.0))
        if time.time() + remaining <= until:
            return ""
        clock = time.strftime("%H:%M", time.localtime(until))
        return f"would not finish by {clock} (needs about {remaining:.0f} s)"

    def _start(self, key: str, resources: Resources, numerics: Numerics | None) -> None:
        desk = self._desk
        run, folder = desk.run(key), desk.folder(key)
        desk.engaged.add(key)
        job = Job(name=run.name, key=key, folder=folder, attempt=0, resources=resources)
        try:
            self._sender.send(job, f"{desk.title(run)}:", numerics=numerics)
        except DiskFullError as error:
            desk.places.give(run.name)
            desk.pause(key, folder, str(error))
        except OSError as error:
            desk.places.give(run.name)
            self._aftermath.ended(job, Exit(code=None, kind="crash", message=f"no worker could be started: {error}"))
