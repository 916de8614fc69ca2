"""Selection, criteria, controls, power, references."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ablab.audit.checks.references import digits


def test_the_best_of_many_looks(bench: Callable, sound: str) -> None:
    often = sound.replace("batch: 4", "batch: 4, validation: {every: 5}")
    assert bench(often).findings("best-of-many-looks") == []
    best = bench(often.replace("metric: val/perplexity", "metric: val/perplexity@best"))
    found = best.findings("best-of-many-looks")
    assert [each.severity for each in found] == ["warning"] and found[0].evidence["looks"] == {"A": 20, "B": 20}
    few = bench(often.replace("every: 5", "every: 40").replace("metric: val/perplexity", "metric: val/perplexity@best"))
    assert [each.severity for each in few.findings("best-of-many-looks")] == ["note"]
    once = bench(sound.replace("metric: val/perplexity", "metric: val/perplexity@best"))
    assert once.findings("best-of-many-looks") == [] and len(once.findings("best-of-one-look")) == 1


def test_evaluating_the_best_checkpoint_on_the_split_that_chose_it(bench: Callable, sound: str) -> None:
    text = sound.replace(
        "train: {steps: 100, batch: 4}",
        "train: {steps: 100, batch: 4, validation: {every: 5}}, evaluate: {split: %s, needs: [prepare, train@best]}",
    ).replace("metric: val/perplexity", "metric: %s/perplexity")
    assert len(bench(text % ("val", "val")).findings("best-of-many-looks")) == 1
    assert bench(text % ("test", "test")).findings("best-of-many-looks") == []


def test_arms_validated_unequally_often(bench: Callable, sound: str) -> None:
    text = sound.replace("model: {dropout: 0.0}", "model: {dropout: 0.0}, pipeline: {train: {validation: {every: 5}}}")
    text = text.replace("batch: 4", "batch: 4, validation: {every: 50}").replace("perplexity,", "perplexity@best,")
    assert [each.evidence["looks"] for each in bench(text).findings("looks-differ")] == [{"A": 2, "B": 20}]


def test_early_stopping_is_noted(bench: Callable, sound: str) -> None:
    assert bench(sound).findings("early-stopping") == []
    text = sound.replace("batch: 4", "batch: 4, validation: {every: 5}, early_stopping: {patience: 2}")
    assert len(bench(text).findings("early-stopping")) == 1


@pytest.mark.parametrize(
    ("metric", "criterion", "against"),
    [
        ("val/perplexity", "ratio <= 1.05", False),
        ("val/perplexity", "ratio >= 0.95", True),
        ("val/loss", "difference > 0", True),
        ("val/loss", "value < 3", False),
    ],
)
def test_a_criterion_that_is_met_by_getting_worse(
    bench: Callable, sound: str, metric: str, criterion: str, against: bool
) -> None:
    lab = bench(sound.replace("val/perplexity", metric).replace("ratio <= 1.05", criterion))
    assert bool(lab.findings("criterion-against-metric")) is against


def test_the_ratio_of_a_logarithm_is_noted(bench: Callable, sound: str) -> None:
    assert bench(sound).findings("ratio-of-a-logarithm") == []
    assert len(bench(sound.replace("val/perplexity", "val/loss")).findings("ratio-of-a-logarithm")) == 1


def test_a_metric_no_stage_of_an_arm_yields(bench: Callable, sound: str) -> None:
    text = sound.replace("B: {like: A,", "B: {like: A, pipeline: {evaluate: null},")
    text = text.replace("metric: val/perplexity", "metric: test/word_perplexity")
    found = bench(text).findings("metric-not-yielded")
    assert [(each.severity, each.subjects) for each in found] == [("error", ("B",))]
    assert bench(sound).findings("metric-not-yielded") == []


def test_a_comparison_without_a_control(bench: Callable, sound: str) -> None:
    assert bench(sound).findings("control-absent") == []
    assert len(bench(sound.replace(", controls: {fail: [blind]}", "")).findings("control-absent")) == 1


def test_a_control_that_is_only_planned(bench: Callable, sound: str) -> None:
    assert bench(sound).findings("control-planned") == []
    lab = bench(sound.replace("blind: {like: A,", "blind: {like: A, planned: true,"))
    assert len(lab.findings("control-planned")) == 1


def test_too_few_seeds_for_the_spread_seen(bench: Callable) -> None:
    lab = bench()
    assert [each.checked for each in lab.findings("undersized")] == [False]
    for seed, a, b in ((1, 20.0, 20.1), (2, 21.0, 21.1), (3, 20.5, 20.5)):
        lab.finish("A", seed, metrics={"val/perplexity": a})
        lab.finish("B", seed, metrics={"val/perplexity": b})
    assert lab.findings("undersized") == []
    noisy = bench()
    noisy.store.root = noisy.store.root.parent / "other"
    for seed, a, b in ((1, 20.0, 20.1), (2, 21.0, 25.1), (3, 20.5, 18.5)):
        noisy.finish("A", seed, metrics={"val/perplexity": a})
        noisy.finish("B", seed, metrics={"val/perplexity": b})
    found = noisy.findings("undersized")
    assert [each.severity for each in found] == ["warning"]
    assert found[0].evidence["half_width"] > found[0].evidence["to_margin"]


@pytest.mark.parametrize(("value", "count"), [(59.43, 4), (0.847, 3), (100.0, 1), (4.27, 3), (0.0, 0), (120.5, 4)])
def test_significant_digits(value: float, count: int) -> None:
    assert digits(value) == count


def test_references_that_look_copied(bench: Callable, sound: str) -> None:
    lab = bench(sound + "references:\n  A: {val/perplexity: 4.27, val/loss: 1.4516}\n  B: {val/perplexity: 4.69}\n")
    assert lab.findings("identical-references") == []
    copied = (
        "references:\n  A: {val/perplexity: 0.847, val/loss: 0.875}\n  B: {val/perplexity: 0.847, val/loss: 0.875}\n"
    )
    assert [each.severity for each in bench(sound + copied).findings("identical-references")] == ["warning"]
    once = "references:\n  A: {val/perplexity: 59.43}\n  B: {val/perplexity: 59.43}\n"
    assert [each.severity for each in bench(sound + once).findings("identical-references")] == ["note"]


def test_a_reference_that_was_not_reproduced(bench: Callable, sound: str) -> None:
    lab = bench(sound + "references:\n  A: {val/perplexity: 4.27}\n  B: {val/perplexity: 4.69}\n")
    lab.finish("A", metrics={"val/perplexity": 4.30})
    lab.finish("B", metrics={"val/perplexity": 5.90})
    assert [each.subjects for each in lab.findings("reference-not-reproduced")] == [("B",)]
    bands = bench(sound + "references:\n  A: {val/perplexity: [4, 6]}\n  B: {val/perplexity: [4, 5]}\n")
    found = bands.findings("reference-not-reproduced")
    assert [each.subjects for each in found] == [("B",)] and "the reference says 4 to 5" in found[0].message
