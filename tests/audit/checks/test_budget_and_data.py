"""Training budgets, planned and measured, and data seen more than once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ablab.audit.engine import audit
from ablab.audit.training import training_stages
from ablab.study.schema import Need

ARMS = """
experiments:
  A: {}
  B: {model: {dropout: 0.0}, pipeline: {train: {%s}}}
comparisons:
  - {baseline: A, variants: [B], factor: %s, also: pipeline.train, metric: val/loss, criterion: difference <= 0.1}
"""


@pytest.mark.parametrize(("train", "named"), [("steps: 200", "steps"), ("batch: 8", "samples")])
def test_budgets_that_differ(bench: Callable, train: str, named: str) -> None:
    found = bench(ARMS % (train, "model.dropout")).findings("training-budget-differs")
    assert len(found) == 1 and named in found[0].evidence and "tokens" in found[0].evidence


def test_equal_budgets_and_budgets_under_test(bench: Callable) -> None:
    assert bench(ARMS % ("", "model.dropout")).findings("training-budget-differs") == []
    tested = bench(ARMS % ("steps: 200", "[model.dropout, pipeline.train.steps]"))
    assert tested.findings("training-budget-differs") == []


def test_half_the_steps_at_twice_the_batch_see_the_same_samples(bench: Callable) -> None:
    found = bench(ARMS % ("steps: 50, batch: 8", "model.dropout")).findings("training-budget-differs")
    assert list(found[0].evidence) == ["steps"]


def test_an_arm_that_continues_another_has_its_training_too(bench: Callable) -> None:
    # The baseline of one log trained phase 3 only, every variant phases 1 to 3.
    study = bench().study
    arm = study.experiments["B"]
    need = Need(experiment="blind", stage="train")
    stages = tuple(replace(s, needs=(*s.needs, need)) if s.kind == "train" else s for s in arm.stages)
    study = replace(study, experiments={**study.experiments, "B": replace(arm, stages=stages)})
    assert [each.owner for each in training_stages(study, study.experiments["B"])] == ["blind", "B"]
    found = [each for each in audit(study) if each.id == "training-budget-differs"]
    assert found[0].evidence["training stages"] == {"baseline": 1, "variant": 2}
    assert found[0].evidence["steps"] == {"baseline": 100, "variant": 200}


def test_measured_budgets_count_what_the_study_cannot_tell(bench: Callable) -> None:
    lab = bench()
    lab.finish("A", facts={"tokens.seen": 12_800})
    lab.finish("B", facts={"tokens.seen": 12_800})
    assert lab.findings("training-budget-differs") == []
    lab = bench()
    lab.store.root = lab.store.root.parent / "other"
    lab.finish("A", facts={"tokens.seen": 12_800})
    lab.finish("B", facts={"tokens.seen": 6_400})
    assert "train tokens.seen (measured)" in lab.findings("training-budget-differs")[0].evidence


def test_epochs_are_counted_from_what_was_prepared(bench: Callable) -> None:
    # 100 steps x 4 windows x 32 tokens.
    lab = bench()
    lab.finish("A", stage="prepare", facts={"tokens.train": 20_000})
    assert lab.findings("epochs-exceed-data") == []
    lab = bench()
    lab.store.root = lab.store.root.parent / "other"
    lab.finish("A", stage="prepare", facts={"tokens.train": 2_000})
    found = lab.findings("epochs-exceed-data")
    assert found[0].evidence["seen"] == 12_800 and found[0].evidence["epochs"] == pytest.approx(6.4)
    assert found[0].subjects == ("A", "B", "blind"), "arms of one data set are one finding"


def test_epochs_count_the_samples_of_the_stage_that_sees_them(bench: Callable) -> None:
    text = """
name: toy
question: Does it matter?
task: retrieval
seeds: [1]
defaults:
  data: {source: mini-m2kr, subset: evqa}
  towers: {pair: wkcn/TinyCLIP-ViT-61M-32-Text-29M-LAION400M}
  pipeline: {prepare: {}, pretrain: {steps: 50, batch: 8}, train: {needs: [prepare, pretrain], steps: 100, batch: 8}}
experiments: {A: {}}
"""
    lab = bench(text)
    lab.finish("A", stage="pretrain", facts={"samples.train": 100})
    lab.finish("A", facts={"samples.train": 800})
    assert lab.findings("epochs-exceed-data") == [], "800 of 800 in the last stage, whatever the first one holds"
    lab.store.root = lab.store.root.parent / "other"
    lab.finish("A", stage="pretrain", facts={"samples.train": 800})
    lab.finish("A", facts={"samples.train": 200})
    (found,) = lab.findings("epochs-exceed-data")
    assert found.evidence["epochs"] == pytest.approx(4)


def test_epochs_that_were_asked_for_are_no_finding(bench: Callable, sound: str) -> None:
    lab = bench(sound.replace("steps: 100", "epochs: 3"))
    lab.finish("A", stage="prepare", facts={"tokens.train": 2_000})
    assert lab.findings("epochs-exceed-data") == []


def test_a_batch_in_which_nothing_is_supervised(bench: Callable) -> None:
    lab = bench()
    lab.probe("A", {"supervised.share": 1.0})
    lab.probe("B", {"supervised.share": 0.0, "supervised.preview": ""})
    assert [each.subjects for each in lab.findings("nothing-supervised")] == [("B",)]


def test_a_control_that_trains_less_fails_for_that_reason(bench: Callable, sound: str) -> None:
    text = sound.replace("{attention: {output: zero}}", "{attention: {output: zero}}, pipeline: {train: {steps: 10}}")
    assert [each.subjects for each in bench(text).findings("training-budget-differs")] == [("A", "blind")]
