"""Each mistake of the retrieval log is named by its audit, and what is right is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ablab.contract.order import Numerics

HEAD = """
name: toy
question: Does it matter?
task: retrieval
seeds: [1, 2, 3]
defaults:
  data: {source: mini-m2kr, subset: oven, image_size: 16, tokenizer: {name: bytes}}
  towers: %(towers)s
  model: {width: 16, heads: 2, output: 8, taps: %(taps)s}
  loss: {score: mean, repeats: %(repeats)s}
  pipeline:
    %(pretrain)s
    train: {steps: 10, batch: %(batch)s, parts: {%(parts)s}%(train)s}
    evaluate: {needs: [prepare, train]}
experiments:
  A: {}
  B: {model: {vectors: mean}%(more)s}
comparisons:
  - {name: main, baseline: A, variants: [B], factor: model.vectors, metric: test/hit_at_5, criterion: difference >= 0}
%(end)s
"""
RANDOM = """{text: {config: {model_type: clip_text_model, num_hidden_layers: 9}},
           vision: {config: {model_type: clip_vision_model, num_hidden_layers: 12, image_size: 16}}}"""
TINYCLIP = "{pair: wkcn/TinyCLIP-ViT-61M-32-Text-29M-LAION400M}"


def text(**change: Any) -> str:
    plain = {"towers": TINYCLIP, "taps": "thirds", "repeats": "positive", "pretrain": "prepare: {}", "batch": 64,
             "parts": "", "train": "", "more": "", "end": ""}  # fmt: skip
    return HEAD % {**plain, **change}


def severities(found: list[Any]) -> set[str]:
    return {each.severity for each in found if each.checked}


@pytest.mark.parametrize("towers", [TINYCLIP, RANDOM])
def test_a_tap_that_a_tower_does_not_have_is_an_error(bench: Callable, towers: str) -> None:
    wrong = bench(text(towers=towers, taps="{text: [3, 7, 11], vision: [3, 7, 11]}")).findings("tap-out-of-range")
    assert severities(wrong) == {"error"} and {each.subjects for each in wrong} == {("A",), ("B",)}
    assert all("valid taps are 0 to 8" in each.message and "2, 5, 8" in each.remedy for each in wrong)
    right = "{text: [2, 5, 8], vision: [3, 7, 11]}"
    assert not bench(text(towers=towers, taps=right)).findings("tap-out-of-range")


def test_a_random_tower_that_nothing_trains_is_an_error(bench: Callable) -> None:
    frozen = "text: {mode: frozen}"
    (found, _) = bench(text(towers=RANDOM, parts=frozen)).findings("frozen-random-part")
    assert found.severity == "error" and "text tower of A" in found.message
    adapted = bench(text(towers=RANDOM, parts="vision: {mode: lora}")).findings("frozen-random-part")
    assert {"vision" in each.message for each in adapted} == {True}
    for sound in (
        text(towers=RANDOM),
        text(towers=TINYCLIP, parts=frozen),
        text(towers=RANDOM, parts=frozen, pretrain="pretrain: {steps: 5}"),
    ):
        assert not bench(sound).findings("frozen-random-part")


def facts(**change: Any) -> dict[str, Any]:
    return {"queries.train": 640, "positives.distinct.train": 364, "positives.collision.train": 0.0027,
            "positives.outside_pool.test": 0, "queries.test": 100, "overlap.test_in_train": 0,
            "overlap.test_positives_in_train": 0, **change}  # fmt: skip


def test_what_is_not_known_yet_is_said_once(bench: Callable) -> None:
    made = bench(text())
    for name in ("repeated-positives", "text-truncated", "positive-outside-pool"):
        (found,) = made.findings(name)
        assert not found.checked and found.subjects == ("A", "B")


def test_a_batch_of_more_queries_than_positives_is_an_error(bench: Callable) -> None:
    made = bench(text(batch=400))
    made.finish("A", stage="prepare", facts=facts())
    found = made.findings("batch-exceeds-positives")
    assert severities(found) == {"error"} and "364 distinct positives" in found[0].message


@pytest.mark.parametrize(("repeats", "severity"), [("negative", "warning"), ("positive", "note"), ("ignored", "note")])
def test_repeated_positives_are_false_negatives_unless_matched_by_id(
    bench: Callable, repeats: str, severity: str
) -> None:
    made = bench(text(repeats=repeats))
    made.finish("A", stage="prepare", facts=facts())
    found = made.findings("repeated-positives")
    assert severities(found) == {severity} and "100% of the batches" in found[0].message
    assert [each.subjects for each in found if each.checked] == [("A", "B")]
    # The same store, so the same prepared data.
    apart = bench(text(repeats=repeats, train=", sampler: distinct"))
    assert not apart.findings("repeated-positives")


def test_positives_are_those_of_the_split_that_is_trained_on(bench: Callable) -> None:
    of_val = {"queries.val": 130, "positives.distinct.val": 30, "positives.collision.val": 0.05}
    made = bench(text(train=", split: val"))
    made.finish("A", stage="prepare", facts=facts(**of_val))
    (found,) = [each for each in made.findings("batch-exceeds-positives") if each.checked]
    assert "all val queries of A, B have 30 distinct positives" in found.message
    assert not [each for each in made.findings("repeated-positives") if "pairs a batch" in each.message]


def test_an_epoch_that_leaves_one_query_over(bench: Callable) -> None:
    made = bench(text(end="references: {A: {train/r_at_1: 0.85, source: log}}"))
    made.finish("A", stage="prepare", facts=facts(**{"queries.train": 641}))
    first, second = made.findings("one-pair-batch")
    assert {first.severity, second.severity} == {"warning", "note"}
    assert "may be that batch's value" in next(f.message for f in (first, second) if f.severity == "warning")
    assert not bench(text(batch=60)).findings("one-pair-batch")


def test_the_size_of_a_hub_subset_is_known_before_anything_is_read(bench: Callable) -> None:
    """339,137 mod 64 = 1: the first run quoted the recall of a batch of one pair."""
    made = bench(text().replace("source: mini-m2kr, subset: oven", "source: m2kr, subset: OVEN, validation: 0"))
    (found,) = made.findings("one-pair-batch")
    # Both arms read the same data, so it is said once.
    assert found.subjects == ("A", "B") and "queries of A, B leave one" in found.message


def test_lost_tokens_are_named_with_their_share(bench: Callable) -> None:
    made = bench(text())
    names = [f"truncated.{role}.{what}" for role in ("query", "passage") for what in ("tokens", "texts")]
    made.finish("A", facts=dict(zip(names, (0.0, 0.0, 0.31, 0.8), strict=True)))
    found = [each for each in made.findings("text-truncated") if each.checked]
    assert [each.severity for each in found] == ["warning"]
    assert "31.0% of the tokens of passage texts" in found[0].message and "80%" in found[0].message
    made = bench(text(batch=32))
    made.finish("A", facts=dict(zip(names, (0.0, 0.0, 0.0003, 0.001), strict=True)))
    assert not [each for each in made.findings("text-truncated") if each.checked], "what rounds to nothing is not said"


@pytest.mark.parametrize(("outside", "severity"), [(0, None), (7, "warning"), (100, "error")])
def test_queries_whose_positives_are_not_in_the_pool(bench: Callable, outside: int, severity: str | None) -> None:
    made = bench(text())
    made.finish("A", stage="prepare", facts=facts(**{"positives.outside_pool.test": outside}))
    assert severities(made.findings("positive-outside-pool")) == ({severity} if severity else set())


def test_train_queries_in_the_test_are_an_error(bench: Callable) -> None:
    made = bench(text())
    made.finish(
        "A", stage="prepare", facts=facts(**{"overlap.test_in_train": 3, "overlap.test_positives_in_train": 0.5})
    )
    assert severities(made.findings("train-query-in-test")) == {"error"}
    assert severities(made.findings("test-positive-in-train")) == {"note"}


def test_sums_over_unlike_numbers_of_vectors_differ_in_scale(bench: Callable) -> None:
    assert not bench(text()).findings("score-scale-differs")
    (found,) = bench(text().replace("score: mean", "score: sum")).findings("score-scale-differs")
    assert found.severity == "warning" and "softmax temperature" in found.message


def test_a_fusion_that_nothing_trains_is_an_error(bench: Callable) -> None:
    """It starts from random numbers whatever the towers come from."""
    (found, _) = bench(text(parts="query_fusion: {mode: frozen}")).findings("frozen-random-part")
    assert found.severity == "error" and "query_fusion of A" in found.message
    inside = bench(text(parts="passage_fusion.cell: {mode: lora}")).findings("frozen-random-part")
    assert {"passage_fusion.cell" in each.message for each in inside} == {True}
    # Layers that stay as they were drawn below those that train.
    above = bench(text(towers=RANDOM, parts="vision: {mode: unlocked, from_layer: 6}")).findings("frozen-random-part")
    assert {"vision tower" in each.message for each in above} == {True}
    later = "train2: {kind: train, needs: [prepare, train], steps: 5, parts: {query_fusion: {mode: frozen}}}"
    assert not bench(text(end="").replace("evaluate: {", f"{later}\n    evaluate: {{")).findings("frozen-random-part")


def test_an_arm_whose_last_stage_counts_epochs_asked_for_them(bench: Callable) -> None:
    """The steps of a backbone before it are over other samples."""
    counted = text(towers=RANDOM, pretrain="pretrain: {steps: 500}")
    made = bench(counted.replace("steps: 10,", "epochs: 1, steps: null,"))
    made.finish("A", stage="prepare", facts=facts())
    made.finish("A", stage="pretrain", facts={"samples.train": 100, "samples.seen": 32000})
    made.finish("A", facts={"samples.train": 640, "samples.seen": 640})
    assert not made.findings("epochs-exceed-data")


def test_a_batch_of_one_query_is_an_error(bench: Callable) -> None:
    (found,) = bench(text(batch=1)).findings("one-pair-batch")
    assert found.severity == "error" and found.subjects == ("A", "B") and "its loss is 0" in found.message
    mined = bench(text(batch=1, train=", negatives: 2"))
    assert not [each for each in mined.findings("one-pair-batch") if each.severity == "error"]


def test_a_package_that_is_not_installed_is_named_before_anything_runs(
    bench: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = text(towers="{open_clip: MobileCLIP-S1, pretrained: datacompdr}", end="").replace(
        "evaluate: {", "bm25: {needs: [prepare]}\n    evaluate: {"
    )
    monkeypatch.setattr("ablab.tasks.retrieval.audits.find_spec", lambda name: None)
    found = bench(study).findings("missing-package")
    assert {(each.severity, each.subjects) for each in found} == {("warning", ("A", "B"))}
    assert {each.remedy for each in found} == {"pip install 'ablab[open-clip]'", "pip install 'ablab[retrieval]'"}
    monkeypatch.setattr("ablab.tasks.retrieval.audits.find_spec", lambda name: object())
    assert not bench(study).findings("missing-package")


def test_a_baseline_of_words_has_no_numerics_that_could_differ(bench: Callable) -> None:
    lab = bench(text(more=", pipeline: {train: null, evaluate: null, bm25: {needs: [prepare]}}"))
    lab.finish("A", 1, "evaluate", numerics=Numerics(device="cuda", precision="bf16"))
    lab.finish("B", 1, "bm25", numerics=Numerics(device="cpu", precision="fp32"))
    assert lab.findings("numerics-differ") == []
    lab.finish("A", 2, "evaluate", numerics=Numerics(device="cuda", precision="fp32"))
    assert {each.subjects for each in lab.findings("numerics-differ")} == {("A",)}


@pytest.mark.parametrize(
    ("passage", "without", "severity"),
    [("image", "image", "warning"), ("both", "image", "note"), ("text", "text", "warning"), ("both", "text", "note"),
     ("text", "image", None), ("none", "image", None)],
)  # fmt: skip
def test_passages_without_what_is_seen_of_them(
    bench: Callable, passage: str, without: str, severity: str | None
) -> None:
    """The hub's tables of M2KR hold no image of the passages of four subsets."""
    made = bench(text().replace("output: 8,", f"output: 8, passage: {passage},"))
    known = {"passages.known": 12, "passages.without_text": 0, "passages.without_image": 0}
    made.finish("A", stage="prepare", facts=facts(**known | {f"passages.without_{without}": 11}))
    assert not made.findings("side-is-empty"), "some have one"
    made = bench(text(batch=32).replace("output: 8,", f"output: 8, passage: {passage},").replace("oven", "evqa"))
    made.finish("A", stage="prepare", facts=facts(**known | {f"passages.without_{without}": 12}))
    found = made.findings("side-is-empty")
    assert severities(found) == ({severity} if severity else set())
    assert all(each.subjects == ("A", "B") for each in found), "both read the same data"
