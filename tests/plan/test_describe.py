"""The plan as a table, as JSON, frozen, and compared with the one before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ablab.plan.describe import changes, changes_lines, freeze_plan, plan_json, plan_rows, plan_summary
from ablab.plan.planning import make_plan
from ablab.store.layout import Store


@pytest.fixture
def study(toy: Any) -> Any:
    options = {"A": {"estimate": 60.0}, "B": {"estimate": 120.0}}
    return toy.study({"A": toy.usual(), "B": toy.usual(steps=7)}, seeds=(1, 2), options=options)


def test_a_row_a_run_in_plan_order(study: Any, store: Store) -> None:
    plan = make_plan(study, store)
    rows = plan_rows(plan)
    assert [row["run"] for row in rows] == [run.name for run in plan.runs.values()]
    assert rows[0]["experiment"] == "A +1" and rows[0]["seed"] == ""
    assert [row["estimate"] for row in rows if row["stage"] == "train"] == ["1m00s", "2m00s", "1m00s", "2m00s"]
    assert {row["estimate"] for row in rows if row["stage"] != "train"} == {"in its arm's"}, "all of it is training"


def test_a_row_names_the_runs_it_waits_for(study: Any, store: Store) -> None:
    rows = plan_rows(make_plan(study, store))
    waits = {(row["experiment"], row["stage"], row["seed"]): row["waits for"] for row in rows}
    assert waits["A +1", "prepare", ""] == ""
    assert waits["B", "train", 2] == "A.prepare"
    assert waits["B", "evaluate", 2] == "A.prepare, B.train/2"


def test_the_summary_says_what_is_left_and_for_how_long(study: Any, store: Store) -> None:
    lines = plan_summary(make_plan(study, store, slots=2))
    assert lines[0] == "9 runs of 2 experiments: 9 pending"
    # Seed 1 of A and B start together; A's second seed ends with B's first, and B's second is left alone.
    assert lines[1].startswith("time: 4m00s left, 2 side by side (from study for 9)")
    assert "critical path: A.prepare -> B.train seed 1" in " ".join(lines)


def test_the_summary_names_what_is_unresolved_unknown_and_late(toy: Any, store: Store, tmp_path: Any) -> None:
    missing = toy.study({"A": toy.usual(data={"file": "gone.txt"})}, seeds=(1,), path=str(tmp_path / "s.yaml"))
    text = "\n".join(plan_summary(make_plan(missing, store)))
    assert "gone.txt@unresolved" in text and "time: unknown" in text
    stages = (toy.stage("prepare"), toy.stage("choose", "", kind="select", sweep={"model.width": (1, 2)}),
              toy.stage("train", "prepare choose"))  # fmt: skip
    plan = make_plan(toy.study({"A": stages}, seeds=(1,)), store)
    assert "1 runs wait for what a select stage chooses" in "\n".join(plan_summary(plan))
    assert any(row["status"] == "pending (late)" for row in plan_rows(plan))


def test_sources_are_those_of_what_is_left(toy: Any, store: Store) -> None:
    options = {"A": {"estimate": 60.0, "planned": True}, "B": {"estimate": 9.0}}
    arms = {"A": toy.usual(data={"source": "a"}), "B": toy.usual(steps=7)}
    text = "\n".join(plan_summary(make_plan(toy.study(arms, seeds=(1,), options=options), store)))
    assert "(from study for 3)" in text


def test_json_holds_all_and_survives_a_round_trip(study: Any, store: Store) -> None:
    plan = make_plan(study, store)
    record = plan_json(plan)
    assert json.loads(json.dumps(record)) == record
    assert [row["key"] for row in record["runs"]] == list(plan.runs)
    names = {row["name"] for row in record["runs"]}
    assert all(given[1] in names for row in record["runs"] for given in row["inputs"])
    assert record["critical_path"] == [plan.runs[key].name for key in plan.critical_path]


def test_changes_since_the_last_plan(toy: Any, store: Store) -> None:
    first = make_plan(toy.study({"A": toy.usual(), "B": toy.usual(steps=7)}, seeds=(1,)), store)
    found = changes(first, store)
    assert len(found.new) == 5 and not (found.left or found.reused or found.superseded)
    freeze_plan(first, store)
    b_train = first.runs[first.by_user["B", 1, "train"]].name
    for key in (first.by_user["A", 1, "prepare"], first.by_user["B", 1, "train"]):
        toy.finish(store, first.runs[key])
    second = make_plan(toy.study({"A": toy.usual(), "B": toy.usual(steps=9)}, seeds=(1,)), store)
    found = changes(second, store)
    assert len(found.reused) == 1 and len(found.left) == 2 and len(found.new) == 2
    # What was superseded and never ran left nothing to fold.
    assert found.superseded == (b_train,)
    assert store.run(b_train).done
    assert [line.partition(":")[0] for line in changes_lines(found)] == [
        "2 new",
        "2 left from before",
        "1 reused",
        "1 superseded (kept)",
    ]


def test_a_plan_of_some_arms_supersedes_nothing(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual(), "B": toy.usual(steps=7)}, seeds=(1,))
    freeze_plan(make_plan(study, store), store)
    part = make_plan(study, store, only=["A"])
    assert changes(part, store, wanted=set(part.runs)).superseded == ()
    folder = store.new_launch()
    freeze_plan(part, store, folder, whole=False)
    assert json.loads((folder / "plan.json").read_text())["runs"][0]["users"] == [["A", 1]]
    last = store.study_folder("toy-study", "full") / "plan.json"
    assert len(json.loads(last.read_text())["runs"]) == 5


def test_a_damaged_last_plan_is_none(study: Any, store: Store) -> None:
    last = store.study_folder("toy-study", "full") / "plan.json"
    last.parent.mkdir(parents=True)
    last.write_text('{"runs": [{"na')
    assert len(changes(make_plan(study, store), store).new) == 9
