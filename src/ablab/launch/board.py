"""Which runs of a plan can start, which wait for inputs, and which never will.

Bookkeeping alone, linear in the plan: nothing here reads the store or starts anything.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from ablab.plan.gates import waits_for
from ablab.plan.graph import Plan, Run


def wanted_runs(plan: Plan, *, only: Iterable[str] | None = None, seeds: Iterable[int] | None = None) -> list[str]:
    """Return the keys of the runs that were asked for, with all they need, in plan order; never of planned ones.

    A gate that is not decided yet is needed by everything.

    Args:
        plan: the plan.
        only: experiments by name or fnmatch pattern; None takes all.
        seeds: seeds; None takes all.
    """
    patterns, numbers = None if only is None else tuple(only), None if seeds is None else set(seeds)
    wanted = {key for keys in waits_for(plan).values() for key in keys}
    for key in reversed(plan.runs):
        run = plan.runs[key]
        asked = run.status != "planned" and any(_asked(user, patterns, numbers) for user in run.users)
        if key in wanted or asked:
            wanted.add(key)
            wanted.update(given.key for given in run.inputs)
            wanted.update(late for late in run.late if late in plan.runs)
    return [key for key in plan.runs if key in wanted]


def _asked(user: tuple[str, int], patterns: tuple[str, ...] | None, seeds: set[int] | None) -> bool:
    experiment, seed = user
    if seeds is not None and seed not in seeds:
        return False
    return patterns is None or any(fnmatchcase(experiment, pattern) for pattern in patterns)


class Board:
    """The wanted runs by where they stand. A run is open until it is settled: done, failed or blocked.

    Args:
        plan: the plan.
        wanted: keys of the runs to do, in the order to do them.
        pool_of: names the pool whose places a run takes; each has a queue of its own.
    """

    def __init__(self, plan: Plan, wanted: Iterable[str], *, pool_of: Callable[[Run], str] = lambda _: "") -> None:
        self.plan = plan
        self._pool_of = pool_of
        self._order = {key: place for place, key in enumerate(wanted)}
        self._missing: dict[str, int] = {}
        self._users: dict[str, list[str]] = {}
        self._ready: dict[str, list[tuple[int, str]]] = {}
        self.done: dict[str, None] = {}
        self.failed: dict[str, str] = {}
        self.blocked: dict[str, str] = {}
        gated = waits_for(plan)
        for key in self._order:
            run = plan.runs[key]
            needs = {given.key for given in run.inputs} | {late for late in run.late if late in plan.runs}
            needs |= gated.get(key, frozenset())
            # A provisional key never starts: once its choices are made, the next plan knows it by another name.
            self._missing[key] = len(needs) + len(run.late)
            for other in needs:
                self._users.setdefault(other, []).append(key)
            if not self._missing[key]:
                self.put_back(key)

    def __contains__(self, key: str) -> bool:
        return key in self._order

    def run(self, key: str) -> Run:
        """Return a run of the plan."""
        return self.plan.runs[key]

    def first(self, pool: str = "") -> str | None:
        """Return the first run of a pool, in plan order, whose inputs are done; None when there is none."""
        queue = self._ready.get(pool)
        while queue and (queue[0][1] in self.done or queue[0][1] in self.failed or queue[0][1] in self.blocked):
            heapq.heappop(queue)
        return queue[0][1] if queue else None

    def drop(self, pool: str = "") -> None:
        """Take the first run of a pool out of its queue."""
        heapq.heappop(self._ready[pool])

    def put_back(self, key: str) -> None:
        """Put a run (again) into its queue, at its place in the plan."""
        queue = self._ready.setdefault(self._pool_of(self.run(key)), [])
        heapq.heappush(queue, (self._order[key], key))

    def finish(self, key: str) -> None:
        """Mark a run as done; what it was the last missing input of becomes ready."""
        if key in self.done:
            return
        self.done[key] = None
        for user in self._users.get(key, ()):
            self._missing[user] -= 1
            if not self._missing[user]:
                self.put_back(user)

    def fail(self, key: str, message: str) -> list[str]:
        """Mark a run as failed; return the runs that are blocked by it now."""
        self.failed[key] = message
        return self._block_users(key, f"needs {self.run(key).name}, which failed")

    def block(self, key: str, reason: str) -> list[str]:
        """Mark a run as impossible for now; return it and the runs it blocks in turn."""
        self.blocked[key] = reason
        return [key, *self._block_users(key, f"needs {self.run(key).name}, which cannot start")]

    def open(self) -> list[str]:
        """Return the runs that are not settled, in plan order."""
        settled = (self.done, self.failed, self.blocked)
        return [key for key in self._order if not any(key in group for group in settled)]

    def _block_users(self, key: str, reason: str) -> list[str]:
        blocked, stack = [], list(self._users.get(key, ()))
        while stack:
            user = stack.pop()
            if user not in self.blocked and user not in self.done:
                self.blocked[user] = reason
                blocked.append(user)
                stack.extend(self._users.get(user, ()))
        return blocked
