"""Threads come from the whole plan, and never more of them than cores are promised."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lab_of_tests import Lab, experiment, stage

from ablab.contract.order import Resources
from ablab.launch.slots import Slots, plan_threads, widest_levels
from ablab.plan.graph import Plan, Run, RunInput
from ablab.store.processes import cores
from ablab.study.schema import Compute


def flat_plan(wide: int, other: int, deep: int = 0) -> Plan:
    """Return a plan of `other` prepare runs, below them `wide` training runs, below the first of these a chain."""
    runs: dict[str, Run] = {}
    make: Any = SimpleNamespace

    def add(key: str, *, accelerator: bool, needs: list[str]) -> None:
        stage = make(name="s", spec=make(accelerator=accelerator))
        given = [RunInput(key=need, reference="") for need in needs]
        runs[key] = Run(key=key, stage=stage, seed=None, users=[("E", 1)], inputs=given)

    for n in range(other):
        add(f"p{n}", accelerator=False, needs=[])
    for n in range(wide):
        add(f"t{n}", accelerator=True, needs=list(runs)[:other])
    for n in range(deep):
        add(f"d{n}", accelerator=True, needs=[f"d{n - 1}" if n else "t0"])
    return Plan(study=make(), runs=runs)


@settings(deadline=None)
@given(
    machine=st.integers(1, 64),
    wide=st.integers(0, 20),
    other=st.integers(0, 20),
    deep=st.integers(0, 3),
    gpus=st.integers(0, 8),
    threads=st.none() | st.integers(1, 80),
    slots=st.none() | st.integers(1, 80),
    processes=st.integers(1, 4),
)
def test_threads_times_workers_never_exceed_the_cores(
    machine: int,
    wide: int,
    other: int,
    deep: int,
    gpus: int,
    threads: int | None,
    slots: int | None,
    processes: int,
) -> None:
    compute = Compute(threads=threads, slots=slots, processes=processes)
    plan = flat_plan(wide, other, deep if wide else 0)
    found = plan_threads(plan, machine=machine, gpus=gpus, compute=compute)
    assert all(1 <= number <= machine for number in (found.wide, found.gpu, found.other))
    places, started = Slots(machine=machine, limit=slots), 0
    resources = Resources(threads=found.wide, world_size=processes)
    while places.fits(resources):
        places.take(str(started), resources)
        started += 1
    assert started >= 1
    assert started == 1 or started * found.wide * processes <= machine


def test_as_many_threads_as_the_widest_level_leaves_each_run() -> None:
    def threads(wide: int, other: int = 1, **compute: Any) -> tuple[int, int]:
        found = plan_threads(flat_plan(wide, other), machine=12, gpus=0, compute=Compute(**compute))
        return found.wide, found.other

    assert threads(1) == (12, 12)
    assert threads(2) == (6, 12)
    assert threads(5) == (2, 12)
    assert threads(100, other=3) == (1, 4)
    assert threads(100, threads=4) == (4, 12)
    assert threads(100, slots=3) == (4, 12)
    assert threads(2, processes=2) == (3, 12)


def test_gpu_runs_leave_cores_to_stages_without_one() -> None:
    found = plan_threads(flat_plan(9, 2), machine=12, gpus=2, compute=Compute())
    assert found.gpu == 4
    assert plan_threads(flat_plan(9, 0), machine=12, gpus=2, compute=Compute()).gpu == 6


def test_levels_count_by_depth() -> None:
    assert widest_levels(flat_plan(4, 2, deep=3)) == {True: 4, False: 2}


def test_slots_give_back_what_they_took() -> None:
    slots = Slots(machine=4, limit=2)
    for name in ("a", "b"):
        slots.take(name, Resources(threads=1))
    assert (slots.free, slots.fits(Resources(threads=1))) == (2, False)
    assert slots.fits(Resources(threads=1, devices=(0,)))
    slots.give("a")
    assert slots.fits(Resources(threads=3))
    assert not slots.fits(Resources(threads=4))
    slots.give("b")
    assert slots.fits(Resources(threads=64))


def test_this_machine_has_cores() -> None:
    assert cores() >= 1


def test_a_relaunch_and_a_part_of_the_study_keep_the_threads(lab: Lab) -> None:
    arms = [experiment(f"E{n}", stage("train", tag=f"{n}")) for n in range(4)]
    lab.ask(*arms)
    lab.launch(only=("E0",), machine={"cores": 8})
    lab.launch(seeds=(1,), machine={"cores": 8})
    lab.launch(machine={"cores": 8})
    orders = [lab.run(f"E{n}").read_order() for n in range(4)]
    assert [order.resources.threads for order in orders if order] == [2, 2, 2, 2]
