"""The loop of a launch: ready runs in plan order onto free places, failures by policy, until nothing is left to do.

Seed-major order comes with the plan. A run that another launch looks after is watched; one whose launcher is gone is
adopted; none is started twice. Everything that lasts is in the run folders: this object can die at any moment.
"""

from __future__ import annotations

import heapq
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ablab.contract.failure import EXIT_CLAIMED, DiskFullError
from ablab.contract.kinds import is_select
from ablab.contract.order import Numerics, Resources
from ablab.launch.board import Board, wanted_runs
from ablab.launch.control import Control
from ablab.launch.crew import Crew, Job, is_here, living_holder
from ablab.launch.devices import Busy
from ablab.launch.endings import read_ending
from ablab.launch.executors.base import Exit
from ablab.launch.failures import Decision, Ending, History, decide
from ablab.launch.options import Notice, NoticeKind, OnEvent, Options
from ablab.launch.orders import Common, build_order, kept, next_resources
from ablab.launch.ownership import Ownership
from ablab.launch.places import Places, Pool
from ablab.launch.records import Records
from ablab.launch.rehearsals import Entry, Rehearsals
from ablab.plan.graph import Plan, Run
from ablab.store.claims import Holder
from ablab.store.files import write_json
from ablab.store.layout import RunFolder, Store
from ablab.store.retention import disk_free

_POOLS: tuple[Pool, ...] = ("gpu", "cpu")
#: What must have become free on a full disk before anything is tried again, in bytes.
_SOME_SPACE = 2**20


@dataclass(kw_only=True)
class Outcome:
    """What became of the runs, by folder name."""

    done: dict[str, None] = field(default_factory=dict)
    reused: dict[str, None] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    stopped: dict[str, None] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


class Scheduler:
    """One launch at work.

    Args:
        plan: the plan.
        wanted: keys of the runs to do, in order.
        store: the store.
        crew: starts and follows workers.
        places: cores and GPUs.
        control: requests to stop.
        common: what all orders share.
        options: what the launch was told.
        notify: told of everything that happens.
        rehearse: returns the rehearsals to do before the long runs of a plan, given the runs to do; None does none.
        replan: makes the plan anew once a select run is done; None keeps the plan.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        wanted: list[str],
        store: Store,
        crew: Crew,
        places: Places,
        control: Control,
        common: Common,
        options: Options,
        notify: OnEvent,
        rehearse: Callable[[Plan, list[str]], Rehearsals] | None = None,
        replan: Callable[[], Plan] | None = None,
    ) -> None:
        self.plan = plan
        self.board = Board(plan, wanted, pool_of=places.pool_of)
        self.outcome = Outcome()
        self._store = store
        self._crew = crew
        self._places = places
        self._control = control
        self._common = common
        self._options = options
        self._notify = notify
        self._plan_rehearsals = rehearse or (lambda plan, _: Rehearsals(plan))
        self._rehearsals = self._plan_rehearsals(plan, wanted)
        self._replan = replan
        self._records = Records(store)
        self._own = Ownership(store.root)
        self._began = time.time()
        self._engaged: set[str] = set()
        self._watched: dict[str, float] = {}
        self._delayed: list[tuple[float, str]] = []
        self._held: list[str] = []
        self._paused: list[str] = []
        self._wanted_bytes: int | None = None
        self._histories: dict[str, History] = {}
        self._saved: dict[str, Resources] = {}
        self._told_to_stop = self._told_to_die = False
        self._waiting_for = ""
        self._users = _users_by_run(plan)
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
            self._conclude()
        finally:
            self._own.close()
            self._crew.close()
        return self.outcome

    # --- Where things stand -------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Sort out what is done, what cannot start, and what is under way without us."""
        for key in self.board.open():
            run = self.board.run(key)
            if self._store.run(run.name).done:
                self.outcome.reused[run.name] = None
                self._link(run)
                self.board.finish(key)
            elif run.status == "planned":
                self._block(key, "planned, never started")
            elif run.unresolved:
                self._block(key, f"unresolved: {', '.join(run.unresolved)}")
        for key in self.board.open():
            if self.board.run(key).status == "running":
                self._follow(key)

    def _over(self) -> bool:
        """Whether there is nothing left to wait for."""
        if self._crew.jobs:
            return False
        if self._control.stopping:
            return True
        pending = self._watched or self._delayed or self._paused or self._held
        return not pending and not any(self._first(pool) for pool in _POOLS) and not self._to_rehearse()

    def _to_rehearse(self) -> list[Entry]:
        return list(self._rehearsals.startable(self._is_done))

    def _is_done(self, key: str) -> bool:
        return key in self.board.done or self._store.run(self.plan.runs[key].name).done

    def _is_dead(self, key: str) -> bool:
        board = self.board
        return key in board.failed or key in board.blocked or self.plan.runs[key].name in self.outcome.left

    def _first(self, pool: Pool) -> str | None:
        """Return the first ready run of a pool that nobody is engaged with."""
        while (key := self.board.first(pool)) is not None and key in self._engaged:
            self.board.drop(pool)
        return key

    def _patience(self) -> float:
        """Return how long nothing needs to be looked at unless something happens."""
        seconds = self._options.poll
        if self._delayed:
            seconds = min(seconds, self._delayed[0][0] - time.monotonic())
        return max(0.0, seconds)

    def _conclude(self) -> None:
        """Sum up what is not done."""
        self._records.flush()
        self._rehearsals.tidy()
        reason = self._control.reason if self._control.stopping else "not started"
        for key, message in self.board.failed.items():
            self.outcome.failed[self.board.run(key).name] = message
        for key, message in self.board.blocked.items():
            self.outcome.blocked[self.board.run(key).name] = message
        for key in self.board.open():
            name = self.board.run(key).name
            if name not in self.outcome.stopped:
                self.outcome.left.setdefault(name, reason)

    # --- Looking around -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look at everything that sends no signal: requests, the disk, waits that are over, runs of others."""
        self._control.look()
        if self._control.stopping:
            self._stop()
            return
        self._records.flush()
        if self._wanted_bytes is not None and disk_free(self._store.root) >= self._wanted_bytes:
            self._wanted_bytes = None
            self._say("resumed", "there is space on the disk again")
            self._release(self._paused)
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            self._release([heapq.heappop(self._delayed)[1]])
        for key in [key for key, next_look in self._watched.items() if next_look <= now]:
            self._look_at_watched(key)
        if self._held and not self._rehearsals.under_way(self._is_done, self._is_dead):
            self._release(self._held)
        if self._places.pool is not None:
            self._places.pool.renew()

    def _stop(self) -> None:
        """Ask the workers to stop, or kill them where that was asked for or took too long."""
        if not self._told_to_stop:
            self._told_to_stop = True
            count = len(self._crew.jobs)
            self._say("stopping", f"stopping ({self._control.reason}): {count} workers write a checkpoint and end")
            for job in self._crew.signal(signal.SIGTERM):
                self._say("stopping", f"{job.name}: its worker is {job.holder}, out of reach from here; it goes on")
                self._crew.forget(job)
        if self._control.killing:
            if not self._told_to_die:
                self._told_to_die = True
                self._say("stopping", "killing the workers; the next launch goes on from their last checkpoints")
            self._crew.signal(signal.SIGKILL)

    def _look_at_watched(self, key: str) -> None:
        """See whether a run that another launch looks after is done, or left to us."""
        run = self.board.run(key)
        folder = self._store.run(run.name)
        self._watched[key] = time.monotonic() + self._options.poll
        if not folder.done and not self._own.take(run.name):
            return
        del self._watched[key]
        self._places.give(run.name)
        if folder.done:
            self._finished(key, "finished by another launch")
            return
        if holder := living_holder(folder):
            self._adopt(key, holder)
            return
        state = folder.read_state()
        if state is not None and state.status == "failed" and state.updated > self._began:
            self._own.give(run.name)
            self._give_up(key, f"failed in another launch: {state.message}")
            return
        self._release([key])

    def _release(self, keys: list[str]) -> None:
        """Make runs ready again that were set aside; empties the list."""
        for key in keys:
            self._engaged.discard(key)
            if key in self.board:
                self.board.put_back(key)
        keys.clear()

    # --- Starting -----------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start what there is a place for, rehearsals first."""
        if self._control.stopping or self._wanted_bytes is not None:
            return
        for entry in self._to_rehearse():
            if entry.not_before <= time.monotonic() and not self._rehearse(entry):
                break
        for pool in _POOLS:
            while self._wanted_bytes is None and (key := self._first(pool)) is not None:
                if not self._begin(key):
                    break

    def _begin(self, key: str) -> bool:
        """Start, adopt, watch or set aside a ready run; False when there is no place for it now."""
        run = self.board.run(key)
        folder = self._store.run(run.name)
        if folder.done:
            self._finished(key, "finished by another launch")
            return True
        resources, numerics = self._resources(run, folder)
        if not self._places.room(resources):
            return False
        if key in self._rehearsals.long and self._rehearsals.under_way(self._is_done, self._is_dead):
            self._engaged.add(key)
            self._held.append(key)
            return True
        if late := self._too_late(run, folder):
            self._engaged.add(key)
            self.outcome.left[run.name] = late
            self._say("waiting", f"{self._title(run)}: {late}", run.name)
            return True
        if self._follow(key):
            return True
        placed = self._places.take(run.name, resources)
        if isinstance(placed, Busy):
            self._own.give(run.name)
            self._say_busy(run, placed)
            return False
        self._waiting_for = ""
        self._start(key, folder, placed, numerics)
        return True

    def _follow(self, key: str) -> bool:
        """Watch or adopt a run that somebody is at already; False when it is ours and nobody is."""
        run = self.board.run(key)
        folder = self._store.run(run.name)
        if not self._own.take(run.name):
            self._engaged.add(key)
            self._watched[key] = time.monotonic() + min(0.2, self._options.poll)
            self._occupy(run, folder, living_holder(folder))
            self._say("watched", f"{self._title(run)}: another launch is at it", run.name)
            return True
        holder = living_holder(folder)
        if holder is not None:
            self._adopt(key, holder)
            return True
        if folder.done:
            self._finished(key, "finished by another launch")
            return True
        return False

    def _adopt(self, key: str, holder: Holder) -> None:
        """Look after a living worker that no launcher looks after."""
        run = self.board.run(key)
        folder = self._store.run(run.name)
        order = folder.read_order()
        attempt = order.attempt if order is not None else max(folder.attempts(), default=1)
        resources = order.resources if order is not None else self._places.wanted(run)
        job = Job(name=run.name, key=key, folder=folder, attempt=attempt, resources=resources)
        self._engaged.add(key)
        self._occupy(run, folder, holder)
        self._crew.adopt(job, holder)
        self._say("adopted", f"{self._title(run)}: adopted ({holder})", run.name)

    def _occupy(self, run: Run, folder: RunFolder, holder: Holder | None) -> None:
        """Account the cores of a worker that is not ours, if it is on this machine as far as we know."""
        if holder is None or is_here(holder):
            order = folder.read_order()
            self._places.occupy(run.name, order.resources if order is not None else self._places.wanted(run))

    def _resources(self, run: Run, folder: RunFolder) -> tuple[Resources, Numerics | None]:
        """Return what the next attempt at a run gets: as in its first attempt, as far as there was one."""
        wanted = self._places.wanted(run)
        digest = self._rehearsals.of_run.get(run.key)
        if digest in self._saved:
            wanted = _with_savings(wanted, self._saved[digest])
        resources, numerics = next_resources(wanted, kept(folder), machine=self._places.slots.machine)
        if run.name in self._saved:
            resources = _with_savings(resources, self._saved[run.name])
        return resources, numerics

    def _too_late(self, run: Run, folder: RunFolder) -> str:
        """Return why a run would not end before the time of --until; empty when it would, or nobody knows."""
        until = self._options.until
        if until is None or run.estimate is None:
            return ""
        state = folder.read_state()
        remaining = run.estimate * (1.0 - (state.progress if state is not None else 0.0))
        if time.time() + remaining <= until:
            return ""
        clock = time.strftime("%H:%M", time.localtime(until))
        return f"would not finish by {clock} (needs about {remaining:.0f} s)"

    def _start(self, key: str, folder: RunFolder, resources: Resources, numerics: Numerics | None) -> None:
        run = self.board.run(key)
        self._engaged.add(key)
        job = Job(name=run.name, key=key, folder=folder, attempt=0, resources=resources)
        try:
            job.attempt = folder.new_attempt().number
            order = build_order(
                run,
                plan=self.plan,
                store=self._store,
                common=self._common,
                resources=resources,
                attempt=job.attempt,
                numerics=numerics,
            )
            # Not synced: after a power cut an order is simply written again.
            write_json(folder.order_path, order, sync=False)
            self._crew.start(job)
        except DiskFullError as error:
            self._places.give(run.name)
            self._pause(key, folder, str(error))
            return
        self._outset(job, f"{self._title(run)}: started{_attempt(job.attempt)}{_where(resources)}")

    def _rehearse(self, entry: Entry) -> bool:
        """Start the rehearsal of a configuration; False when there is no place for it now."""
        run, folder = self.plan.runs[entry.key], entry.folder
        name = f"{folder.path.parent.name}/{folder.name}"
        wanted = self._places.wanted(run)
        if entry.digest in self._saved:
            wanted = _with_savings(wanted, self._saved[entry.digest])
        if not self._places.room(wanted):
            return False
        if not self._own.take(name) or living_holder(folder) is not None:
            # Another launch rehearses it: look again in a while.
            self._own.give(name)
            entry.not_before = time.monotonic() + self._options.poll
            return True
        if (result := folder.read_result()) is not None and folder.result_path.stat().st_mtime > self._began:
            self._own.give(name)
            entry.status = "passed"
            self._say("rehearsed", f"{run.experiment} {run.stage.name}: rehearsed by another launch", result.key)
            return True
        placed = self._places.take(name, wanted)
        if isinstance(placed, Busy):
            self._own.give(name)
            self._say_busy(run, placed)
            return False
        job = Job(name=name, key=entry.key, folder=folder, attempt=0, resources=placed, rehearsal=entry.digest)
        try:
            _clear(folder)
            job.attempt = folder.new_attempt().number
            order = build_order(
                run,
                plan=self.plan,
                store=self._store,
                common=self._common,
                resources=placed,
                attempt=job.attempt,
                mode=entry.mode,
                folder=folder.path,
                inputs=self._rehearsals.inputs(entry, self._is_done),
            )
            write_json(folder.order_path, order, sync=False)
            self._crew.start(job)
        except DiskFullError as error:
            self._places.give(name)
            self._pause(None, folder, str(error))
            return False
        entry.status = "running"
        verb = "probe" if entry.mode == "probe" else "rehearsal"
        self._outset(job, f"{run.experiment} {run.stage.name}: {verb} started{_where(placed)}")
        return True

    def _outset(self, job: Job, text: str) -> None:
        if job.pid is not None:
            job.placed = True
            self._places.began(job.name, job.pid)
        self._say("started", text, job.name)

    # --- Ending -------------------------------------------------------------------------------------------------

    def _absorb(self) -> None:
        """Take in the workers that ended, and the processes of those that have one by now."""
        for job, ended in self._crew.ended():
            self._places.give(job.name)
            if job.rehearsal:
                self._rehearsal_ended(job, ended)
            else:
                self._ended(job, ended)
        for job in self._crew.jobs.values():
            if not job.placed and job.pid is not None:
                job.placed = True
                self._places.began(job.name, job.pid)

    def _ended(self, job: Job, ended: Exit) -> None:
        if job.folder.done:
            self._finished(job.key, "done")
            return
        if ended.code == EXIT_CLAIMED:
            # A worker of a launcher that died just then claimed the run before ours did.
            if holder := living_holder(job.folder):
                self._adopt(job.key, holder)
            else:
                heapq.heappush(self._delayed, (time.monotonic() + self._options.poll, job.key))
            return
        ending = read_ending(job.folder, job.attempt, ended)
        if self._control.stopping and ending.kind in {"stopped", "killed", "time-limit", "lost"}:
            self._stopped(job, ending.message)
            return
        history = self._histories.setdefault(job.name, History())
        decision = decide(ending, history, stage=self.board.run(job.key).stage, resources=job.resources)
        self._act(job, ending, decision)

    def _act(self, job: Job, ending: Ending, decision: Decision) -> None:
        """Carry out what follows the failure of a run."""
        run = self.board.run(job.key)
        text = f"{self._title(run)}: {ending.kind}: {ending.message or 'no message'}; {decision.resolution}"
        if ending.kind != "stopped":
            self._records.issue(job.folder, ending, decision.resolution)
            self._say("failure", text, run.name)
        self._saved[job.name] = decision.resources
        if ending.kind == "stopped":
            self._stopped(job, ending.message)
        elif decision.action == "stop":
            self._records.state(job.folder, "failed", kind=ending.kind, message=ending.message)
            self._own.give(run.name)
            self._give_up(job.key, ending.message or ending.kind)
        elif self._control.stopping:
            self._stopped(job, ending.message)
        elif decision.action == "pause":
            self._pause(job.key, job.folder, ending.message)
        elif decision.action == "wait":
            self._records.state(job.folder, "waiting", kind=ending.kind, message=ending.message)
            heapq.heappush(self._delayed, (time.monotonic() + decision.delay, job.key))
        else:
            self._release([job.key])

    def _rehearsal_ended(self, job: Job, ended: Exit) -> None:
        entry = self._rehearsals.entries[job.rehearsal]
        run = self.plan.runs[entry.key]
        name = f"{run.experiment} {run.stage.name}"
        if job.folder.done:
            entry.status = "passed"
            self._own.give(job.name)
            self._say("rehearsed", f"{name}: {'probed' if entry.mode == 'probe' else 'rehearsal passed'}", job.name)
            return
        if ended.code == EXIT_CLAIMED:
            entry.status = "pending"
            return
        ending = read_ending(job.folder, job.attempt, ended)
        if self._control.stopping or ending.kind == "stopped":
            entry.status = "pending"
            return
        history = self._histories.setdefault(job.name, History())
        decision = decide(ending, history, stage=run.stage, resources=job.resources)
        self._saved[job.rehearsal] = decision.resources
        if decision.action != "stop":
            entry.status = "pending"
            entry.not_before = time.monotonic() + decision.delay
            self._say("failure", f"{name}: rehearsal: {ending.kind}: {ending.message}; {decision.resolution}", job.name)
            if decision.action == "pause":
                self._pause(None, job.folder, ending.message)
            return
        entry.status, entry.message = "failed", ending.message
        self._own.give(job.name)
        self._rehearsal_failed(entry, ending, decision)

    def _rehearsal_failed(self, entry: Entry, ending: Ending, decision: Decision) -> None:
        """Stop every run of a configuration before it began, and say why in their folders."""
        run = self.plan.runs[entry.key]
        message = f"{'probe' if entry.mode == 'probe' else 'rehearsal'} failed: {ending.kind}: {ending.message}"
        self._say("failure", f"{run.experiment} {run.stage.name}: {message}", entry.folder.name)
        keys = [key for key in self._rehearsals.runs_of(entry.digest) if key in self.board and not self._is_done(key)]
        if not keys:
            self.outcome.failed[entry.folder.name] = message
        for key in keys:
            folder = self._store.run(self.board.run(key).name)
            if key == entry.key:
                self._records.issue(folder, ending, f"{decision.resolution} (found by the rehearsal, nothing was run)")
            self._records.state(folder, "failed", kind=ending.kind, message=message)
            self._engaged.add(key)
            self._give_up(key, message)

    def _finished(self, key: str, how: str) -> None:
        run = self.board.run(key)
        self._engaged.add(key)
        self._own.give(run.name)
        self.outcome.done[run.name] = None
        self._link(run)
        self.board.finish(key)
        self._say("finished", f"{self._title(run)}: {how}", run.name)
        if self._replan is not None and is_select(run.stage.spec):
            self._take_plan(self._replan())

    def _stopped(self, job: Job, message: str) -> None:
        run = self.board.run(job.key)
        self._records.state(job.folder, "stopped", kind="stopped", message=message)
        self._own.give(run.name)
        self.outcome.stopped[run.name] = None
        self._say("stopped", f"{self._title(run)}: stopped; the next launch goes on from its last checkpoint", run.name)

    def _give_up(self, key: str, message: str) -> None:
        run = self.board.run(key)
        self._say("failed", f"{self._title(run)}: failed: {message}", run.name)
        self._say_blocked(self.board.fail(key, message))

    def _block(self, key: str, reason: str) -> None:
        self._engaged.add(key)
        self._say_blocked(self.board.block(key, reason))

    def _pause(self, key: str | None, folder: RunFolder, message: str) -> None:
        """Start nothing more until there is space on the disk."""
        free = disk_free(self._store.root)
        if key is not None:
            run = self.board.run(key)
            self._engaged.add(key)
            self._paused.append(key)
            free = max(free, min(run.bytes or 0, 2**62) - _bytes_of(folder))
            self._records.state(folder, "paused", kind="disk-full", message=message)
        wanted = free + _SOME_SPACE
        self._wanted_bytes = max(self._wanted_bytes or 0, wanted)
        self._say("paused", f"paused until {self._wanted_bytes:,} bytes are free: {message}", folder.name)

    def _take_plan(self, plan: Plan) -> None:
        """Go on with a plan in which more is decided; what is settled or under way stays."""
        before = self.board
        wanted = wanted_runs(plan, only=self._options.only, seeds=self._options.seeds)
        self.plan = plan
        self._users = _users_by_run(plan)
        # Runs under way keep being looked up here, whatever the new plan calls them.
        for key in [*self._engaged, *before.done]:
            plan.runs.setdefault(key, before.plan.runs[key])
        known = self._rehearsals
        self._rehearsals = self._plan_rehearsals(plan, wanted)
        self._rehearsals.entries.update(known.entries)
        self.board = Board(plan, wanted, pool_of=self._places.pool_of)
        for key in self.board.open():
            run = self.board.run(key)
            if key in before.done:
                self.board.finish(key)
            elif key in before.failed:
                self.board.fail(key, before.failed[key])
            elif key not in self._engaged and self._store.run(run.name).done:
                self.outcome.reused[run.name] = None
                self.board.finish(key)
            elif run.unresolved:
                self._block(key, f"unresolved: {', '.join(run.unresolved)}")

    # --- Words --------------------------------------------------------------------------------------------------

    def _title(self, run: Run) -> str:
        users = list(dict.fromkeys(experiment for experiment, _ in run.users))
        more = f" +{len(users) - 1}" if len(users) > 1 else ""
        seed = "" if run.seed is None else f" seed {run.seed}"
        return f"{users[0]}{more}{seed} {run.stage.name}"

    def _say(self, kind: NoticeKind, text: str, run: str | None = None) -> None:
        self._notify(Notice(kind=kind, text=text, run=run))

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked >= self._options.poll:
            self._ticked = now
            self._notify(Notice(kind="tick"))

    def _say_blocked(self, keys: list[str]) -> None:
        for key in keys:
            run = self.board.run(key)
            self._say("blocked", f"{self._title(run)}: blocked: {self.board.blocked[key]}", run.name)

    def _say_busy(self, run: Run, busy: Busy) -> None:
        """Say once what is waited for, where it is not our own runs."""
        if run.stage.spec.accelerator and str(busy) != self._waiting_for and self._places.pool is not None:
            self._waiting_for = str(busy)
            self._say("waiting", f"{self._title(run)}: waiting: {busy}", run.name)

    def _link(self, run: Run) -> None:
        self._records.links(self.plan.study, self._users.get(run.key, ()), run.name)


def _users_by_run(plan: Plan) -> dict[str, list[tuple[str, int, str]]]:
    found: dict[str, list[tuple[str, int, str]]] = {}
    for user, key in plan.by_user.items():
        found.setdefault(key, []).append(user)
    return found


def _with_savings(resources: Resources, saved: Resources) -> Resources:
    """Return resources with the memory that earlier failures made us save."""
    names = ("micro_batch", "evaluation_batch", "loss_chunk")
    return resources.model_copy(update={name: getattr(saved, name) or getattr(resources, name) for name in names})


def _clear(folder: RunFolder) -> None:
    """Remove what an earlier rehearsal left, so that this one starts from nothing; attempts and their logs stay."""
    folder.create()
    folder.result_path.unlink(missing_ok=True)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)


def _bytes_of(folder: RunFolder) -> int:
    return sum(path.lstat().st_size for path in folder.path.rglob("*") if not path.is_dir())


def _attempt(number: int) -> str:
    return "" if number == 1 else f" (attempt {number})"


def _where(resources: Resources) -> str:
    if resources.devices:
        return f" on GPU {', '.join(map(str, resources.devices))}"
    threads = resources.threads * resources.world_size
    return f" on {threads} {'core' if threads == 1 else 'cores'}"
