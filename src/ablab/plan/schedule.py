"""How long jobs take on some slots, and the chain of jobs that nothing can shorten.

List scheduling: whenever a slot is free, the first job in the given order whose needs are done takes it. That is what
the launcher does, so that its wall clock can be told beforehand.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Job:
    """Work of some seconds that waits for other jobs; needs that are not among the jobs count as done."""

    seconds: float
    needs: Sequence[Hashable] = ()


def makespan(jobs: Mapping[Any, Job], slots: int) -> float:
    """Return the seconds until all jobs are done.

    Args:
        jobs: in the order in which they should start, needs before what needs them.
        slots: jobs side by side.
    """
    if slots <= 1:
        # One slot is never idle while something is left.
        return sum(job.seconds for job in jobs.values())
    places = {name: place for place, name in enumerate(jobs)}
    seconds = [job.seconds for job in jobs.values()]
    missing = [0] * len(jobs)
    users: list[list[int]] = [[] for _ in jobs]
    for place, job in enumerate(jobs.values()):
        needs = {places[need] for need in job.needs if need in places}
        missing[place] = len(needs)
        for need in needs:
            users[need].append(place)
    ready = [place for place, count in enumerate(missing) if not count]
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            place = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[place], place))
        now = running[0][0]
        # All that ends now, before anything starts: the first of what becomes ready by it takes the first slot.
        while running and running[0][0] == now:
            for user in users[heapq.heappop(running)[1]]:
                missing[user] -= 1
                if not missing[user]:
                    heapq.heappush(ready, user)
    return now


def critical_path(jobs: Mapping[str, Job]) -> tuple[tuple[str, ...], float]:
    """Return the longest chain of jobs that wait for each other, and its seconds.

    Args:
        jobs: needs before what needs them.
    """
    ends: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for name, job in jobs.items():
        start, last = 0.0, None
        for need in job.needs:
            end = ends.get(str(need))
            if end is not None and (last is None or end > start):
                start, last = end, str(need)
        ends[name] = start + job.seconds
        before[name] = last
    if not ends:
        return (), 0.0
    at: str | None = max(ends, key=ends.__getitem__)
    longest = ends[str(at)]
    chain: list[str] = []
    while at is not None:
        chain.append(at)
        at = before[at]
    return tuple(reversed(chain)), longest
