"""Seeds: single, few, unpaired; and arms that draw nothing need none."""

from __future__ import annotations

from collections.abc import Callable


def test_single_and_few_seeds(bench: Callable, sound: str) -> None:
    assert bench(sound).findings("single-seed") == bench(sound).findings("few-seeds") == []
    single = bench(sound.replace("[1, 2, 3]", "[1]"))
    assert [each.subjects for each in single.findings("single-seed")] == [("A", "B")]
    two = bench(sound.replace("[1, 2, 3]", "[1, 2]"))
    assert two.findings("single-seed") == [] and len(two.findings("few-seeds")) == 1


def test_seeds_without_a_partner(bench: Callable, sound: str) -> None:
    text = sound.replace("B: {like: A,", "B: {like: A, seeds: [2, 3, 4],")
    found = bench(text).findings("unpaired-seeds")
    assert [each.severity for each in found] == ["warning"] and "1, 4" in found[0].message
    none = bench(sound.replace("B: {like: A,", "B: {like: A, seeds: [7, 8, 9],")).findings("unpaired-seeds")
    assert [each.severity for each in none] == ["error"]
    assert bench(sound).findings("unpaired-seeds") == []


def test_arms_that_draw_nothing_need_one_seed(bench: Callable) -> None:
    text = """
seeds: [1]
experiments:
  A: {pipeline: {prepare: {}, train: null, evaluate: null}}
  B: {like: A, data: {max_documents: 3}}
comparisons:
  - {baseline: A, variants: [B], factor: data, metric: val/perplexity, criterion: ratio <= 1.05}
"""
    lab = bench("name: x\nquestion: x\ntask: language-modeling\ndefaults: {data: {source: austen}}\n" + text)
    assert [stage.kind for stage in lab.study.experiments["A"].stages] == ["prepare"]
    assert lab.findings("single-seed") == []
