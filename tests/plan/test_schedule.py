"""List scheduling against brute force, and the critical path against all paths."""

from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ablab.plan.schedule import Job, critical_path, makespan


def chain(*seconds: float) -> dict[str, Job]:
    return {str(n): Job(value, (str(n - 1),) if n else ()) for n, value in enumerate(seconds)}


def test_by_hand() -> None:
    # prepare 10 s, then three trainings of 100, 60 and 50 s on two slots, each with an evaluation of 5 s.
    jobs = {"p": Job(10)}
    for name, seconds in (("a", 100), ("b", 60), ("c", 50)):
        jobs[name] = Job(seconds, ("p",))
        jobs[f"{name}-test"] = Job(5, (name,))
    # a: 10-110, b: 10-70, b-test 70-75, c: 75-125, a-test 110-115, c-test 125-130.
    assert makespan(jobs, 2) == 130
    assert makespan(jobs, 1) == 235
    assert makespan(jobs, 9) == 115
    assert critical_path(jobs) == (("p", "a", "a-test"), 115)


def test_nothing_takes_no_time() -> None:
    assert makespan({}, 4) == 0
    assert critical_path({}) == ((), 0)


def test_a_need_that_is_no_job_is_done() -> None:
    assert makespan({"a": Job(3, ("gone",))}, 2) == 3
    assert critical_path({"a": Job(3, ("gone",))}) == (("a",), 3)


def test_a_chain_gains_nothing_from_slots() -> None:
    assert makespan(chain(1, 2, 3), 8) == 6


def by_ticks(jobs: dict[str, Job], slots: int) -> int:
    """Simulate second by second: the same rule, told another way."""
    left = {name: int(job.seconds) for name, job in jobs.items()}
    started: list[str] = []
    now = 0
    while left:
        for name in [name for name in started if name in left and left[name] == 0]:
            del left[name]
        again = True
        while again:
            again = False
            for name in jobs:
                is_free = sum(1 for one in started if one in left) < slots
                if name not in started and is_free and not any(need in left for need in jobs[name].needs):
                    started.append(name)
                    if left[name] == 0:
                        del left[name]
                        again = True
        for name in started:
            if name in left:
                left[name] -= 1
        now += bool(left)
    return now


graphs = st.lists(st.tuples(st.integers(1, 5), st.sets(st.integers(0, 6), max_size=3)), min_size=1, max_size=7).map(
    lambda rows: {
        str(n): Job(float(seconds), tuple(str(need) for need in sorted(needs) if need < n))
        for n, (seconds, needs) in enumerate(rows)
    }
)


@settings(max_examples=200, deadline=None)
@given(graphs, st.integers(1, 4))
@example({"0": Job(1.0), "1": Job(2.0), "2": Job(1.0), "3": Job(1.0, ("0", "2")), "4": Job(1.0, ("0", "2")),
          "5": Job(1.0), "6": Job(1.0, ("0", "4"))}, 2)  # fmt: skip
def test_against_a_simulation_by_ticks(jobs: dict[str, Job], slots: int) -> None:
    assert makespan(jobs, slots) == by_ticks(jobs, slots)


@settings(max_examples=200, deadline=None)
@given(graphs)
def test_the_critical_path_is_the_longest_of_all_chains(jobs: dict[str, Job]) -> None:
    longest = 0.0
    for length in range(1, len(jobs) + 1):
        for names in itertools.combinations(jobs, length):
            if all(before in jobs[after].needs for before, after in itertools.pairwise(names)):
                longest = max(longest, sum(jobs[name].seconds for name in names))
    path, seconds = critical_path(jobs)
    assert seconds == longest == sum(jobs[name].seconds for name in path)
    assert all(before in jobs[after].needs for before, after in itertools.pairwise(path))
    assert makespan(jobs, len(jobs)) == longest
