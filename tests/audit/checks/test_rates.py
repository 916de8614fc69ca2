"""Learning rates, sweeps, warm-ups and schedules that were cut."""

from __future__ import annotations

from collections.abc import Callable

ARMS = """
experiments:
  A: {pipeline: {train: {optimizer: {learning_rate: 3e-4}}}}
  B: {like: A, model: {dropout: 0.0}, pipeline: {train: {optimizer: {learning_rate: %s}}}}
  C: {like: A, model: {dropout: 0.2}, pipeline: {train: {optimizer: {learning_rate: %s}}}}
comparisons:
  - {baseline: A, variants: [B, C], factor: %s, also: pipeline.train.optimizer, metric: val/loss,
     criterion: difference <= 0.1}
"""


def test_another_rate_is_flagged_even_where_it_is_declared(bench: Callable) -> None:
    lab = bench(ARMS % ("1e-3", "3e-4", "model.dropout"))
    found = lab.findings("learning-rate-differs")
    assert [each.subjects for each in found] == [("A", "B")]
    assert found[0].evidence["A"] == 3e-4 and found[0].evidence["B"] == 1e-3
    assert len(lab.findings("learning-rates-mixed")) == 1


def test_equal_rates_and_rates_under_test_are_not(bench: Callable) -> None:
    equal = bench(ARMS % ("3e-4", "3e-4", "model.dropout"))
    assert equal.findings("learning-rate-differs") == equal.findings("learning-rates-mixed") == []
    tested = bench(ARMS % ("1e-3", "2e-3", "[model.dropout, pipeline.train.optimizer.learning_rate]"))
    assert tested.findings("learning-rate-differs") == tested.findings("learning-rates-mixed") == []


SWEEP = "tune: {kind: select, sweep: {pipeline.train.optimizer.learning_rate: [1e-4, 1e-3]}}, "


def test_one_tuned_arm_against_an_untuned_one(bench: Callable) -> None:
    text = """
experiments:
  A: {pipeline: {%strain: {%soptimizer: {learning_rate: 3e-4}}}}
  B: {model: {dropout: 0.0}, pipeline: {%strain: {%soptimizer: {learning_rate: 1e-3}}}}
comparisons:
  - {baseline: A, variants: [B], factor: model.dropout, metric: val/loss, criterion: difference <= 0.1}
"""
    needs = "needs: [prepare, tune], "
    one = bench(text % ("", "", SWEEP, needs))
    assert len(one.findings("tuning-differs")) == 1 and one.findings("learning-rate-differs") == []
    both = bench(text % (SWEEP, needs, SWEEP, needs))
    assert both.findings("tuning-differs") == both.findings("learning-rate-differs") == []


def test_a_warmup_longer_than_the_run(bench: Callable) -> None:
    def lab(warmup: int) -> object:
        return bench(f"experiments:\n  A: {{pipeline: {{train: {{schedule: {{warmup: {warmup}}}}}}}}}\n")

    assert [each.severity for each in lab(100).findings("warmup-exceeds-run")] == ["error"]
    assert len(lab(60).findings("warmup-long")) == 1
    assert lab(10).findings("warmup-long") == lab(10).findings("warmup-exceeds-run") == []


def test_a_schedule_that_was_cut_short(bench: Callable) -> None:
    lab = bench()
    lab.probe("A", {"steps.done": 2, "steps.planned": 100})
    assert lab.findings("schedule-cut-short") == [], "a probe stops after two steps because it is a probe"
    lab.finish("A", facts={"steps.done": 100, "steps.planned": 100})
    lab.finish("B", facts={"steps.done": 40, "steps.planned": 100})
    assert [each.subjects for each in lab.findings("schedule-cut-short")] == [("B",)]
