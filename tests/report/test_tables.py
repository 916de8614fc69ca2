"""Tables for papers: the numbers are those of the store, names are text, and bold means something."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.failure import ConfigError
from ablab.report.references import Reference
from ablab.report.table_text import csv_text, latex, latex_text, markdown, markdown_text, plus_minus
from ablab.report.tables import ResultTable, make_table
from tests.analysis.conftest import METRIC, make

HOSTILE = "50%_{x}&$~^# \\input{/etc/passwd} | <b>*hi*</b> `a|b` [l](javascript:x)\nnew"
ARMS = {"base": [10.0, 20.0, 30.0], "good": [8.0, 16.01, 24.02], "one": [9.0, None, None], "none": [None] * 3}


def table(label: str = "", references: Any = None, **options: Any) -> ResultTable:
    study, results = make(ARMS)
    experiments = {name: replace(arm, label=label) for name, arm in study.experiments.items()}
    study = replace(study, experiments=experiments, question=label)
    return make_table(study, replace(results, study=study), references or {}, **options)


def references() -> Any:
    return {"base": {METRIC: (Reference(value=9.87654, source=f"log {HOSTILE}"), Reference(value=1e-6, source="b"))}}


def test_numbers_are_means_and_student_intervals_over_the_seeds_there_are() -> None:
    rows = {row["experiment"]: row for row in table().records()}
    assert set(rows) == {"base", "good", "one"}
    assert rows["base"]["mean"] == 20.0
    half = 4.302652729911275 * 10 / math.sqrt(3)
    assert rows["base"]["high"] - 20.0 == pytest.approx(half)
    assert (rows["one"]["n"], rows["one"]["low"]) == (1, None)


def test_best_is_marked_only_where_every_difference_is_supported() -> None:
    assert not any(row["best"] for row in table().records())
    rows = {row["experiment"]: row["best"] for row in table(arms=["base", "good"]).records()}
    assert rows == {"base": False, "good": True}
    assert r"\mathbf{16 \pm 20}" in latex(table(arms=["base", "good"]))
    assert "**16 ± 20** (3)" in markdown(table(arms=["base", "good"]))


def test_latex_has_as_many_columns_in_each_row_and_its_braces_match() -> None:
    text = latex(table(HOSTILE, references()))
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1])
    rows = [line for line in body.splitlines() if line.endswith(r"\\") and r"\multicolumn" not in line]
    assert len(rows) == 5
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {columns - 1}
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert r"\input" not in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    assert r"${1 \times 10^{-6}}^{b}$" in text


@given(st.text())
def test_latex_text_leaves_no_special_character_open(text: str) -> None:
    open_ones = re.sub(r"\\(?:text[a-z]+\{\}|[&%$#_{}])|\{\[\}|\{\]\}", "", latex_text(text))
    assert not set(open_ones) & set("\\&%$#_{}~^\n")


def test_a_markdown_table_keeps_its_columns_whatever_names_hold() -> None:
    text = markdown(table(HOSTILE, references()))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert not re.search(r"(?<!\\)<b>", text)
    assert "9.877 (a), 1e-06 (b)" in text


@given(st.text())
def test_markdown_text_is_one_line_without_open_markup(text: str) -> None:
    bare = re.sub(r"\\[\\`*_{}\[\]<>#|~$!&]", "", markdown_text(text))
    assert not set(bare) & set("\\`*_{}[]<>#|~$!&\n")


def test_csv_holds_whole_numbers_and_names_as_text() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(table("=cmd()", references())))))
    base = next(row for row in rows if row["experiment"] == "base")
    assert [float(value) for value in base["values"].split()] == ARMS["base"]
    assert [float(value) for value in base["reference"].split("; ")] == [9.87654, 1e-06]
    assert base["label"] == "'=cmd()"
    assert (base["n"], base["best"], base["direction"]) == ("3", "", "lower")


def test_references_stand_apart_and_change_no_measured_number() -> None:
    with_them = {row["experiment"]: row for row in table(references=references()).records()}
    without = {row["experiment"]: row for row in table().records()}
    for name, row in without.items():
        assert {key: value for key, value in with_them[name].items() if key != "references"} == {
            key: value for key, value in row.items() if key != "references"
        }
    only = {"none": {METRIC: (Reference(value=3.0, source="x"),)}}
    row = next(row for row in table(references=only).records() if row["experiment"] == "none")
    assert (row["mean"], row["n"], row["references"]) == (None, 0, [{"value": 3.0, "band": None, "source": "x"}])


def test_a_band_is_told_by_both_ends_and_by_where_we_stand() -> None:
    band = Reference(value=16.5, band=(15.0, 18.0), source="the plan")
    assert [band.side(value) for value in (14.99, 15.0, 18.0, 18.01)] == ["below", "within", "within", "above"]
    assert Reference(value=16.5, source="x").side(16.5) is None
    found = table(references={"base": {METRIC: (band,)}})
    assert "15–18 (a)" in markdown(found) and "${15–18}^{a}$" in latex(found)
    cells = [row["reference"] for row in csv.DictReader(io.StringIO(csv_text(found)))]
    assert "15.0 to 18.0" in cells


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"metrics": ["vl/perplexity"]}, "val/perplexity"),
        ({"arms": ["bse"]}, "base"),
        ({"comparisons": ["man"]}, "main"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        table(**options)


@pytest.mark.parametrize(
    ("mean", "half", "shown"),
    [
        (4.27163, 0.01234, ("4.272", "0.012")),
        (1234.5, 45.6, ("1234", "46")),
        (0.5, None, ("0.5", "")),
        (3.0, 0.0, ("3", "")),
        (2.5e-6, 1.2e-7, ("2.50e-6", "0.12e-6")),
        (3.2e9, 1e8, ("3.20e+9", "0.10e+9")),
        (float("nan"), 1.0, ("nan", "")),
    ],
)
def test_mean_and_half_width_share_their_decimals(mean: float, half: float | None, shown: tuple[str, str]) -> None:
    assert plus_minus(mean, half) == shown
