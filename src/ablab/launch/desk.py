"""What a launch has on its desk: every run by where it stands, and the moves between these places.

The parts of the scheduler share it: the loop (`scheduler`), what sends workers out (`sending`), what follows their
ends (`aftermath`), and rehearsals (`rehearser`). It starts nothing and decides nothing.
"""

from __future__ import annotations

import heapq
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ablab.launch.board import Board
from ablab.launch.devices import Busy
from ablab.launch.endings import checkpoint_mark
from ablab.launch.options import Notice, NoticeKind, OnEvent, Options
from ablab.launch.ownership import Ownership
from ablab.launch.places import Places, Pool
from ablab.launch.records import Records
from ablab.plan.gates import refresh
from ablab.plan.graph import Plan, Run
from ablab.store.layout import RunFolder, Store
from ablab.store.remake import lost_weights, restore
from ablab.store.retention import disk_free

#: What must become free on a full disk before anything is tried again: a share of the disk, within bounds in bytes.
_SHARE, _LEAST, _MOST = 0.02, 2**20, 2**28


@dataclass(kw_only=True)
class Outcome:
    """What became of the runs, by folder name."""

    done: dict[str, None] = field(default_factory=dict)
    reused: dict[str, None] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    stopped: dict[str, None] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


class Desk:
    """The runs of a launch. A run that is engaged is at work, watched, or set aside; it is not in the queue.

    Args:
        plan: the plan.
        wanted: keys of the runs to do, in order.
        store: the store.
        places: cores and GPUs.
        options: what the launch was told.
        notify: told of everything that happens.
    """

    def __init__(
        self, *, plan: Plan, wanted: list[str], store: Store, places: Places, options: Options, notify: OnEvent
    ) -> None:
        self.plan = plan
        self.board = Board(plan, wanted, pool_of=places.pool_of)
        self.store = store
        self.places = places
        self.options = options
        self.records = Records(store)
        self.own = Ownership(store.root)
        self.outcome = Outcome()
        self.engaged: set[str] = set()
        self.held: list[str] = []
        self._delayed: list[tuple[float, str]] = []
        self._paused: list[str] = []
        self._wanted_bytes: int | None = None
        self._pausing: dict[Path, RunFolder] = {}
        self._resumed: dict[Path, tuple[int, str]] = {}
        self._waiting_for = ""
        self._missed: set[str] = set()
        self._notify = notify
        self._users = _users_by_run(plan)
        self._weights = _weights_read(plan)

    # --- Looking up ---------------------------------------------------------------------------------------------

    def run(self, key: str) -> Run:
        """Return a run."""
        return self.plan.runs[key]

    def folder(self, key: str) -> RunFolder:
        """Return the folder a run works in: its own, or the one in which its dropped weights are made again."""
        run = self.plan.runs[key]
        folder = self.store.run(run.name)
        if run.again and any(lost_weights(folder, which) for which in self._weights.get(key, ())):
            return folder.remake
        return folder

    def find_folder(self, key: str) -> None:
        """Take the folder of a run that another launch has made since the plan, under whatever name of the stage."""
        run = self.run(key)
        if not run.folder and not self.store.run(run.name).exists:
            run.folder = next((folder.name for folder in self.store.find(key)), "")

    def is_done(self, key: str) -> bool:
        """Whether a run is finished, by whomever."""
        return key in self.board.done or self.folder(key).done

    def is_dead(self, key: str) -> bool:
        """Whether a run will not be finished in this launch."""
        return key in self.board.failed or key in self.board.blocked or self.run(key).name in self.outcome.left

    def first(self, pool: Pool) -> str | None:
        """Return the first ready run of a pool that nobody is engaged with."""
        while (key := self.board.first(pool)) is not None and key in self.engaged:
            self.board.drop(pool)
        return key

    @property
    def full(self) -> bool:
        """Whether the disk was full and still is."""
        return self._wanted_bytes is not None

    @property
    def waits(self) -> bool:
        """Whether runs are set aside that will come back by themselves."""
        return bool(self._delayed or self._paused or self.held)

    def next_return(self) -> float | None:
        """Return the monotonic time at which the next delayed run comes back; None without one."""
        return self._delayed[0][0] if self._delayed else None

    # --- Moves --------------------------------------------------------------------------------------------------

    def release(self, keys: list[str]) -> None:
        """Put runs back into their queues; empties the list."""
        for key in keys:
            self.engaged.discard(key)
            if key in self.board:
                self.board.put_back(key)
        keys.clear()

    def hold(self, key: str) -> None:
        """Set a long run aside until the rehearsals are over."""
        self.engaged.add(key)
        self.held.append(key)

    def delay(self, key: str, seconds: float) -> None:
        """Set a run aside for a while."""
        self.engaged.add(key)
        heapq.heappush(self._delayed, (time.monotonic() + seconds, key))

    def pause(self, key: str | None, folder: RunFolder, message: str) -> None:
        """Start nothing more, this run least of all, until there is space on the disk.

        What is free now says nothing of what was free when the run failed: somebody may have made space since. So a
        run waits for what it is expected to leave, and for more than last time only where that got it nowhere.
        """
        wanted = 0
        if key is not None:
            self.engaged.add(key)
            self._paused.append(key)
            wanted = max(0, (self.run(key).bytes or 0) - _bytes_of(folder))
            self.records.state(folder, "paused", kind="disk-full", message=message)
        free_then, mark = self._resumed.get(folder.path, (0, ""))
        if checkpoint_mark(folder.checkpoints) == mark:
            wanted = max(wanted, free_then)
        self._pausing[folder.path] = folder
        some = min(_MOST, max(_LEAST, int(_SHARE * shutil.disk_usage(self.store.root).total)))
        self._wanted_bytes = max(self._wanted_bytes or 0, wanted + some)
        self.say("paused", f"paused until {self._wanted_bytes:,} bytes are free: {message}", folder.name)

    def bring_back(self) -> None:
        """Release what waited for space or for time and need not wait any longer."""
        self.records.flush()
        free = disk_free(self.store.root)
        if self._wanted_bytes is not None and free >= self._wanted_bytes:
            self._wanted_bytes = None
            for path, folder in self._pausing.items():
                self._resumed[path] = free, checkpoint_mark(folder.checkpoints)
            self._pausing.clear()
            self.say("resumed", "there is space on the disk again")
            self.release(self._paused)
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            self.release([heapq.heappop(self._delayed)[1]])

    def leave(self, key: str, reason: str) -> None:
        """Do not start a run in this launch."""
        run = self.run(key)
        self.engaged.add(key)
        self.outcome.left[run.name] = reason
        self.say("waiting", f"{self.title(run)}: {reason}", run.name)

    def finish(self, key: str, how: str) -> None:
        """Take note that a run is done."""
        run = self.run(key)
        self.engaged.add(key)
        if run.again:
            restore(self.store.run(run.name))
        self.own.give(run.name)
        self.outcome.done[run.name] = None
        self.link(run)
        self.board.finish(key)
        self.say("finished", f"{self.title(run)}: {how}", run.name)

    def reuse(self, key: str) -> None:
        """Take note that a run was done before the launch."""
        run = self.run(key)
        if run.again:
            restore(self.store.run(run.name))
        self.outcome.reused[run.name] = None
        self.link(run)
        self.board.finish(key)

    def stop(self, key: str, folder: RunFolder, message: str) -> None:
        """Take note that a run was stopped on request and goes on another time."""
        run = self.run(key)
        self.records.state(folder, "stopped", kind="stopped", message=message)
        self.own.give(run.name)
        self.outcome.stopped[run.name] = None
        self.say("stopped", f"{self.title(run)}: stopped; the next launch goes on from its last checkpoint", run.name)

    def fail(self, key: str, message: str) -> None:
        """Give a run up, and what needs it."""
        run = self.run(key)
        self.engaged.add(key)
        self.own.give(run.name)
        self.say("failed", f"{self.title(run)}: failed: {message}", run.name)
        self._say_blocked(self.board.fail(key, message))

    def block(self, key: str, reason: str) -> None:
        """Take note that a run cannot start, nor what needs it."""
        self.engaged.add(key)
        self._say_blocked(self.board.block(key, reason))

    def take_plan(self, plan: Plan, wanted: list[str]) -> None:
        """Go on with a plan in which more is decided; what is settled or under way stays as it is."""
        before = self.board
        # What is under way keeps being looked up here, whatever the new plan calls it.
        for key in [*self.engaged, *before.done]:
            plan.runs.setdefault(key, before.plan.runs[key])
        self.plan, self._users, self._weights = plan, _users_by_run(plan), _weights_read(plan)
        self.board = Board(plan, wanted, pool_of=self.places.pool_of)
        for key in self.board.open():
            if key in before.done:
                self.board.finish(key)
            elif key in before.failed:
                self.board.fail(key, before.failed[key])
            elif key not in self.engaged and self.folder(key).done:
                self.reuse(key)
            elif unresolved := self.run(key).unresolved:
                self.block(key, f"unresolved: {', '.join(unresolved)}")

    def look_at_gates(self) -> None:
        """Block what a gate holds that was missed; a gate that waits is looked at again once its runs are done."""
        self.plan.gates = refresh(self.plan, self.store, finished=self.board.done)
        for gate in self.plan.gates:
            if gate.status != "held" or gate.experiment in self._missed:
                continue
            self._missed.add(gate.experiment)
            self.say(
                "blocked",
                f"the gate {gate.experiment} was missed and holds the rest: {gate.text}; "
                f"mend the set-up, or set experiments.{gate.experiment}.gate to null",
            )
            for key in self.board.open():
                if key in gate.held:
                    self.engaged.add(key)
                    self.board.block(key, f"held by the gate {gate.experiment}: {gate.text}")

    def conclude(self, reason: str) -> Outcome:
        """Sum up; `reason` is why runs were left that nothing is known of."""
        self.records.flush()
        for key, message in self.board.failed.items():
            self.outcome.failed[self.run(key).name] = message
        for key, message in self.board.blocked.items():
            self.outcome.blocked[self.run(key).name] = message
        for key in self.board.open():
            name = self.run(key).name
            if name not in self.outcome.stopped:
                self.outcome.left.setdefault(name, reason)
        return self.outcome

    def link(self, run: Run) -> None:
        """Make a run reachable by the names of its users."""
        self.records.links(self.plan.study, self._users.get(run.key, ()), run.name)

    # --- Words --------------------------------------------------------------------------------------------------

    def title(self, run: Run) -> str:
        """Return what people call a run."""
        users = list(dict.fromkeys(experiment for experiment, _ in run.users))
        more = f" +{len(users) - 1}" if len(users) > 1 else ""
        seed = "" if run.seed is None else f" seed {run.seed}"
        return f"{users[0]}{more}{seed} {run.stage.name}"

    def say(self, kind: NoticeKind, text: str = "", run: str | None = None) -> None:
        """Tell that something happened."""
        self._notify(Notice(kind=kind, text=text, run=run))

    def say_busy(self, run: Run, busy: Busy) -> None:
        """Say once what is waited for, where others have it, and leave it to be read by `ablab status`."""
        if busy.reasons and str(busy) != self._waiting_for:
            self._waiting_for = str(busy)
            self.say("waiting", f"{self.title(run)}: waiting: {busy}", run.name)
            folder = self.store.run(run.name)
            self.records.state(folder, "waiting", kind="memory-taken", message=str(busy))

    def _say_blocked(self, keys: list[str]) -> None:
        for key in keys:
            run = self.run(key)
            self.say("blocked", f"{self.title(run)}: blocked: {self.board.blocked[key]}", run.name)


def _weights_read(plan: Plan) -> dict[str, set[Literal["last", "best"]]]:
    """Return which checkpoints other runs of the plan read, by key, of runs whose weights are to be made again."""
    found: dict[str, set[Literal["last", "best"]]] = {}
    for run in plan.runs.values():
        for given in run.inputs:
            if plan.runs[given.key].again:
                found.setdefault(given.key, set()).add(given.checkpoint)
    return found


def _users_by_run(plan: Plan) -> dict[str, list[tuple[str, int, str]]]:
    found: dict[str, list[tuple[str, int, str]]] = {}
    for user, key in plan.by_user.items():
        found.setdefault(key, []).append(user)
    return found


def _bytes_of(folder: RunFolder) -> int:
    return sum(path.lstat().st_size for path in folder.path.rglob("*") if not path.is_dir())
