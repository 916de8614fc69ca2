"""From YAML and a store on disk to values, curves, verdicts and their history."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablab.analysis.collect import collect, seeded_runs
from ablab.analysis.curves import gaps
from ablab.analysis.history import keep_verdicts, read_history
from ablab.analysis.results import Results
from ablab.analysis.timing import account
from ablab.analysis.verdicts import judge
from ablab.contract.order import Numerics
from ablab.contract.result import Best, Result
from ablab.contract.state import State
from ablab.plan.planning import make_plan
from ablab.store.claims import acquire
from ablab.store.events import EventWriter
from ablab.store.layout import RunFolder, Store
from ablab.study.loading import load_text

TEXT = """
name: toy
question: Does it matter?
task: language-modeling
seeds: [1, 2, 3]
defaults:
  model: {width: 32, layers: 1, heads: 2, context: 32}
  data: {source: austen, tokenizer: {name: bytes}}
  pipeline: {prepare: {}, train: {steps: 100, batch: 4}, evaluate: {split: test}}
experiments:
  A: {}
  B: {model: {dropout: 0.0}, pipeline: {train: {batch: 8}}}
  later: {planned: true, model: {dropout: 0.2}}
comparisons:
  - {name: main, baseline: A, variants: [B], factor: model.dropout, also: pipeline.train.batch,
     metric: val/perplexity, criterion: ratio <= 1.05}
"""


class Lab:
    def __init__(self, folder: Path, text: str = TEXT) -> None:
        self.study = load_text(text, path=folder / "study.yaml")
        self.store = Store(folder / "lab")

    def folder(self, experiment: str, seed: int, stage: str = "train") -> RunFolder:
        run = make_plan(self.study, self.store).run_of(experiment, seed, stage)
        assert run is not None
        return self.store.run(run.name).create()

    def events(self, folder: RunFolder, lines: list[tuple[str, dict[str, Any]]], attempt: int = 1) -> None:
        with EventWriter(folder.attempt(attempt).create().events) as writer:
            for name, values in lines:
                writer.log(name, **values)

    def finish(self, experiment: str, seed: int, stage: str = "train", **fields: Any) -> RunFolder:
        folder = self.folder(experiment, seed, stage)
        folder.write_result(Result(key=folder.key, numerics=Numerics(), **fields))
        folder.write_state(State(status="done", updated=2.0, started=1.0, finished=2.0))
        return folder

    def results(self, **options: Any) -> Results:
        return collect(self.study, make_plan(self.study, self.store), self.store, **options)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_an_empty_store_has_every_arm_and_no_value(lab: Lab) -> None:
    results = lab.results()
    assert [(arm.experiment, arm.seed, arm.status) for arm in results.arms[:3]] == [
        ("A", 1, "pending"), ("A", 2, "pending"), ("A", 3, "pending"),
    ]  # fmt: skip
    assert {arm.status for arm in results.arms if arm.experiment == "later"} == {"planned"}
    assert results.metrics() == () and list(results.rows()) == []
    verdict = judge(lab.study, results)[0].variants[0]
    assert (verdict.verdict, verdict.code) == ("undecided", "no-values")


def test_values_come_with_their_best_and_step(lab: Lab) -> None:
    folder = lab.finish(
        "A", 1, metrics={"val/perplexity": 21.0}, best={"val/perplexity": Best(value=20.0, step=50)},
        facts={"tokens.seen": 5}, time={"other": 3.0}, peak={"rss": 7},
    )  # fmt: skip
    lab.events(
        folder,
        [("start", {"step": 0, "pid": 1, "host": "h"})]
        + [("step", {"step": s, "loss": 1.0 / s}) for s in range(1, 101)]
        + [("validation", {"step": s, "values": {"val/perplexity": p}}) for s, p in ((50, 20.0), (100, 21.0))],
    )
    results = lab.results()
    value = results.value("A", 1, "val/perplexity")
    assert (value.last, value.step, value.best, value.best_step, value.looks) == (21.0, 100, 20.0, 50, 2)
    assert (value.stage, value.key, value.partial) == ("train", folder.key, False)
    assert (value.at("last"), value.at("best")) == (21.0, 20.0)
    record = results.run("A", 1, "train")
    assert record.curves["train/loss"].values[-1] == pytest.approx(0.01)
    assert record.facts == {"tokens.seen": 5} and record.peak == {"rss": 7} and record.done
    assert results.arm("A", 1).best["val/perplexity"].value == 20.0
    assert [row["metric"] for row in results.rows()] == ["val/perplexity"]


def test_verdicts_need_no_events(lab: Lab) -> None:
    for seed in (1, 2, 3):
        lab.finish("A", seed, metrics={"val/perplexity": 20.0 + seed / 10})
        lab.finish("B", seed, metrics={"val/perplexity": 20.1 + seed / 9})
    results = lab.results(with_curves=False)
    verdict = judge(lab.study, results)[0]
    assert verdict.variants[0].verdict == "met"
    assert verdict.caveats == ("B also differs from A in pipeline.train.batch: 8 against 4",)


def test_a_metric_belongs_to_the_last_stage_that_yields_it(lab: Lab) -> None:
    lab.finish("A", 1, metrics={"val/perplexity": 21.0, "test/perplexity": 99.0})
    results = lab.results()
    assert not results.value("A", 1, "val/perplexity").partial, "evaluate yields test/, so val/ is complete"
    assert results.value("A", 1, "test/perplexity").partial, "evaluate will still yield it"
    assert results.values("A", "test/perplexity") == {}
    lab.finish("A", 1, "evaluate", metrics={"test/perplexity": 22.0})
    value = lab.results().value("A", 1, "test/perplexity")
    assert (value.last, value.stage, value.partial) == (22.0, "evaluate", False)
    assert lab.results().arm("A", 1).status == "pending", "its prepare stage is still open"


def test_a_run_that_is_still_going_is_partial_and_never_judged(lab: Lab) -> None:
    folder = lab.folder("A", 1)
    lab.events(
        folder,
        [
            ("start", {"step": 0, "pid": 1, "host": "h"}),
            ("validation", {"step": 10, "values": {"val/perplexity": 40.0}}),
            ("time", {"totals": {"forward-backward": 5.0}}),
        ],
    )
    folder.write_state(State(status="running", updated=1.0, step=12, steps=100, last={"val/perplexity": 40.0}, rss=9))
    claim = acquire(folder.claim_path)
    try:
        results = lab.results()
    finally:
        claim.release()
    value = results.value("A", 1, "val/perplexity")
    assert (value.last, value.step, value.partial) == (40.0, 10, True)
    assert results.values("A", "val/perplexity") == {}
    record = results.run("A", 1, "train")
    assert (record.status, record.step, record.steps_total) == ("running", 12, 100)
    assert record.time == {"forward-backward": 5.0} and record.peak == {"rss": 9}


def test_attempts_superseded_by_a_resume_leave_no_points(lab: Lab) -> None:
    folder = lab.finish("A", 1, metrics={"val/loss": 2.0}, attempts=2, time={"other": 4.0})
    start = {"pid": 1, "host": "h"}
    lab.events(folder, [("start", {"step": 0, **start})] + [("step", {"step": s, "loss": 9.0}) for s in (10, 20, 30)])
    lab.events(folder, [("start", {"step": 20, **start})] + [("step", {"step": s, "loss": 1.0}) for s in (30, 40)], 2)
    record = lab.results().run("A", 1, "train")
    curve = record.curves["train/loss"]
    assert (curve.steps, curve.values) == ((10, 20, 30, 40), (9.0, 9.0, 1.0, 1.0))
    assert record.attempts == 2 and [span.attempt for span in record.spans] == [1, 2]
    assert account(record).seconds == {"other": 4.0}


def test_failures_carry_their_kind(lab: Lab) -> None:
    folder = lab.folder("B", 2)
    folder.write_state(State(status="failed", updated=1.0, kind="not-finite", message="step 7"))
    folder.append_issue({"kind": "not-finite", "message": "step 7", "resolution": "stopped"})
    results = lab.results()
    arm = results.arm("B", 2)
    assert (arm.status, arm.failure, arm.message) == ("failed", "not-finite", "step 7")
    assert results.run("B", 2, "train").issues[0]["resolution"] == "stopped"


def test_a_diverged_seed_leaves_the_comparison_open(lab: Lab) -> None:
    for seed in (1, 2):
        lab.finish("A", seed, metrics={"val/perplexity": 20.0 + seed / 100})
        lab.finish("B", seed, metrics={"val/perplexity": 20.0 + seed / 101})
    lab.finish("A", 3, metrics={"val/perplexity": 20.0})
    lab.folder("B", 3).write_state(State(status="failed", updated=1.0, kind="not-finite"))
    assert judge(lab.study, lab.results())[0].variants[0].code == "diverged"


def test_a_corrupt_result_is_named_and_not_used(lab: Lab) -> None:
    folder = lab.finish("A", 1, metrics={"val/perplexity": 20.0})
    folder.result_path.write_text("{")
    results = lab.results()
    assert results.value("A", 1, "val/perplexity") is None
    assert "result.json" in results.run("A", 1, "train").message
    assert results.run("A", 1, "train").status == "failed"


def test_stages_that_draw_nothing_are_constants(tmp_path: Path) -> None:
    text = TEXT.replace("seeds: [1, 2, 3]", "seeds: [1]").replace(
        "train: {steps: 100, batch: 4}, evaluate: {split: test}", "train: null, evaluate: null"
    )
    text = text.replace("B: {model: {dropout: 0.0}, pipeline: {train: {batch: 8}}}", "B: {data: {max_documents: 2}}")
    text = text.replace("factor: model.dropout, also: pipeline.train.batch", "factor: data").replace(
        "  later: {planned: true, model: {dropout: 0.2}}\n", ""
    )
    lab = Lab(tmp_path, text)
    lab.finish("A", 1, "prepare", metrics={"val/perplexity": 20.0})
    lab.finish("B", 1, "prepare", metrics={"val/perplexity": 20.5})
    results = lab.results()
    assert results.arm("A", 1).seeded == frozenset()
    verdict = judge(lab.study, results)[0].variants[0]
    assert (verdict.verdict, verdict.code) == ("met", "constant")


def test_seeded_metrics_are_random_through_what_a_stage_reads(lab: Lab) -> None:
    lab.finish("A", 1, "evaluate", metrics={"test/perplexity": 20.0})
    assert "test/perplexity" in lab.results().arm("A", 1).seeded
    plan = make_plan(lab.study, lab.store)
    for run in plan.runs.values():
        run.seed = run.seed if run.stage.kind == "train" else None
    kinds = {plan.runs[key].stage.kind for key in seeded_runs(plan)}
    assert kinds == {"train", "evaluate"}, "evaluation draws nothing itself and reads what did"


def test_runs_side_by_side_are_marked(lab: Lab) -> None:
    one, two = lab.finish("A", 1, metrics={"x": 1.0}), lab.finish("B", 1, metrics={"x": 2.0})
    for folder in (one, two):
        path = folder.attempt(1).create().events
        path.write_text('{"e": "start", "t": 0, "step": 0, "host": "h"}\n{"e": "end", "t": 100}\n')
    results = lab.results()
    assert results.run("A", 1, "train").shared_with == (two.key,)
    assert results.run("A", 2, "train").shared is False


def test_gaps_are_taken_at_equal_steps_from_real_events(lab: Lab) -> None:
    for name, points in (("A", ((50, 30.0), (90, 20.0))), ("B", ((50, 33.0), (100, 19.0)))):
        lab.events(
            lab.folder(name, 1),
            [("start", {"step": 0, "pid": 1, "host": "h"})]
            + [("validation", {"step": s, "values": {"val/perplexity": v}}) for s, v in points],
        )
    found = gaps(lab.results(), lab.study.comparisons[0])
    assert [(gap.variant, gap.seed, gap.last) for gap in found] == [("B", 1, (50, pytest.approx(1.1)))]


def test_verdicts_are_kept_once_and_again_when_they_change(lab: Lab, make: Callable) -> None:
    def judged() -> list:
        return judge(lab.study, lab.results())

    assert len(keep_verdicts(lab.store, lab.study, judged(), now=0.0)) == 1
    assert keep_verdicts(lab.store, lab.study, judged(), now=1.0) == []
    for seed in (1, 2, 3):
        lab.finish("A", seed, metrics={"val/perplexity": 20.0 + seed / 10})
        lab.finish("B", seed, metrics={"val/perplexity": 20.1 + seed / 9})
    added = keep_verdicts(lab.store, lab.study, judged(), now=86_400.0)
    assert keep_verdicts(lab.store, lab.study, judged(), now=90_000.0) == []
    assert [line["variants"][0]["verdict"] for line in read_history(lab.study, lab.store)] == ["undecided", "met"]
    assert added[0]["date"] == "1970-01-02T00:00:00Z"
    assert added[0]["variants"][0]["seeds"] == [1, 2, 3] and len(added[0]["variants"][0]["runs"]) == 6
