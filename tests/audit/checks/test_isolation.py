"""Every difference outside the factor is an error until it is declared, and then a caveat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

TWO = """
experiments:
  A: {}
  B: {like: A, model: {%s}, pipeline: {train: {%s}}}
comparisons:
  - {baseline: A, variants: [B], factor: %s, %smetric: val/perplexity, criterion: ratio <= 1.05}
"""


def two(model: str = "dropout: 0.0", train: str = "", factor: str = "model.dropout", also: str = "") -> str:
    return TWO % (model, train, factor, f"also: {also}, " if also else "")


def test_the_factor_alone_is_no_finding(bench: Callable) -> None:
    ids = {each.id for each in bench(two()).findings()}
    assert not ids & {"difference-outside-factor", "declared-difference", "factor-without-difference"}


def test_a_difference_outside_the_factor_is_an_error_with_both_values(bench: Callable) -> None:
    found = bench(two(train="batch: 8")).findings("difference-outside-factor")
    assert [each.severity for each in found] == ["error"]
    assert found[0].evidence == {"pipeline.train.batch": {"baseline": 4, "variant": 8}}
    assert found[0].where == "comparisons[0].variants[0]" and found[0].line is not None


def test_declaring_it_makes_it_a_note(bench: Callable) -> None:
    lab = bench(two(train="batch: 8", also="pipeline.train.batch"))
    assert lab.findings("difference-outside-factor") == []
    assert [each.severity for each in lab.findings("declared-difference")] == ["note"]


def test_what_cannot_change_a_result_is_no_difference(bench: Callable) -> None:
    assert bench(two(train="log_every: 3, micro_batch: 2")).findings("difference-outside-factor") == []


def test_a_factor_that_does_not_differ_is_an_error(bench: Callable) -> None:
    found = bench(two(model="layers: 2", also="model.layers")).findings("factor-without-difference")
    assert [each.severity for each in found] == ["error"]


@pytest.mark.parametrize("model", ["", "dropout: 0.1"])
def test_a_variant_equal_to_its_baseline_is_an_error(bench: Callable, model: str) -> None:
    lab = bench(two(model=model))
    assert [each.severity for each in lab.findings("identical-variant")] == ["error"]
    assert lab.findings("factor-without-difference") == []


def test_two_variants_that_are_one_experiment_are_named(bench: Callable) -> None:
    text = """
experiments:
  A: {}
  B: {model: {dropout: 0.0}}
  C: {model: {dropout: 0.0}}
comparisons:
  - {baseline: A, variants: [B, C], factor: model.dropout, metric: val/perplexity, criterion: ratio <= 1.05}
"""
    found = bench(text).findings("identical-arms")
    assert [each.subjects for each in found] == [("B", "C")]


def test_other_files_are_other_data_although_no_setting_differs(bench: Callable, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one")
    (tmp_path / "two.txt").write_text("two")
    text = """
experiments:
  A: {data: {source: files, files: [one.txt]}}
  B: {model: {dropout: 0.0}, data: {source: files, files: [two.txt]}}
comparisons:
  - {baseline: A, variants: [B], factor: model.dropout, metric: val/perplexity, criterion: ratio <= 1.05}
"""
    found = bench(text).findings("difference-outside-factor")
    assert found[0].evidence == {"data.files": {"baseline": ["one.txt"], "variant": ["two.txt"]}}
