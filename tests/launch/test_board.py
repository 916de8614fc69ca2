"""The order in which runs become ready, against a plain topological walk."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.launch.board import Board, wanted_runs
from ablab.plan.graph import Plan, Run, RunInput

Graph = dict[int, set[int]]


def plan_of(graph: Graph, *, late: dict[int, tuple[str, ...]] | None = None) -> Plan:
    stage: Any = SimpleNamespace(name="s")
    runs = {
        str(node): Run(
            key=str(node),
            stage=stage,
            seed=node % 3,
            users=[(f"E{node % 4}", node % 3)],
            inputs=[RunInput(key=str(other), reference="s") for other in sorted(given)],
            late=(late or {}).get(node, ()),
        )
        for node, given in graph.items()
    }
    study: Any = SimpleNamespace()
    return Plan(study=study, runs=runs)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(1, 12))
    return {node: draw(st.sets(st.integers(0, node - 1), max_size=3)) if node else set() for node in range(size)}


def above(graph: Graph, node: int) -> set[int]:
    """Everything that needs `node`, directly or not."""
    found: set[int] = set()
    for other in graph:
        if other not in found and other != node and (node in graph[other] or graph[other] & found):
            found.add(other)
    return found


@settings(deadline=None)
@given(graphs(), st.integers(0, 2**32).map(random.Random))
def test_every_run_comes_once_after_its_inputs_and_as_early_as_its_place_allows(
    graph: Graph, chance: random.Random
) -> None:
    board = Board(plan_of(graph), list(map(str, graph)))
    done: set[int] = set()
    taken: list[int] = []
    while (key := board.first()) is not None:
        node = int(key)
        ready = {n for n in graph if graph[n] <= done and n not in taken}
        assert node == min(ready)
        board.drop()
        if chance.random() < 0.2:
            board.put_back(key)
            continue
        taken.append(node)
        board.finish(key)
        done.add(node)
    assert sorted(taken) == sorted(graph)
    assert not board.open()


@settings(deadline=None)
@given(graphs(), st.data())
def test_a_failure_blocks_exactly_what_needs_it(graph: Graph, data: st.DataObject) -> None:
    board = Board(plan_of(graph), list(map(str, graph)))
    victim = data.draw(st.sampled_from(sorted(graph)))
    for node in sorted(graph):
        if node == victim:
            blocked = board.fail(str(node), "broken")
            assert {int(key) for key in blocked} == above(graph, victim)
        elif graph[node] <= {int(key) for key in board.done}:
            board.finish(str(node))
    assert {int(key) for key in board.blocked} == above(graph, victim)
    assert {int(key) for key in board.done} == set(graph) - above(graph, victim) - {victim}


def test_a_run_whose_choice_is_open_never_becomes_ready() -> None:
    board = Board(plan_of({0: set(), 1: {0}}, late={1: ("0",)}), ["0", "1"])
    board.finish("0")
    assert board.first() is None
    assert board.open() == ["1"]


@settings(deadline=None)
@given(graphs(), st.sets(st.sampled_from(["E0", "E1", "E2", "E3"])), st.sets(st.integers(0, 2)))
def test_wanted_runs_are_those_asked_for_and_all_they_need(graph: Graph, only: set[str], seeds: set[int]) -> None:
    wanted = wanted_runs(plan_of(graph), only=only or None, seeds=seeds or None)
    asked = {n for n in graph if (not only or f"E{n % 4}" in only) and (not seeds or n % 3 in seeds)}
    needed = {n for n in graph if n in asked or above(graph, n) & asked}
    assert wanted == [str(node) for node in sorted(needed)]


def test_patterns_choose_experiments() -> None:
    plan = plan_of({n: set() for n in range(8)})
    assert wanted_runs(plan, only=["E[12]"]) == ["1", "2", "5", "6"]


def test_each_pool_has_its_own_queue() -> None:
    board = Board(plan_of({n: set() for n in range(4)}), list("0123"), pool_of=lambda run: "ab"[int(run.key) % 2])
    assert (board.first("a"), board.first("b"), board.first("c")) == ("0", "1", None)
    board.drop("a")
    assert (board.first("a"), board.first("b")) == ("2", "1")
