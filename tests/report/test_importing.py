"""References from older logs: what is taken, what is left and why; never a guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ablab.contract.failure import ConfigError
from ablab.report.importing import Columns, Import, one_number, pasted, take
from ablab.report.references import references_of
from ablab.report.sheets import Sheet, read_sheets
from ablab.store.layout import Store
from ablab.store.references import append_references
from ablab.study.loading import load

STUDY = Path(__file__).parents[2] / "studies" / "gpt-oelm.yaml"

#: Rows in the manner of the experiment log that the study gpt-oelm repeats.
LOG = """\
# Log
| id | data | arm | final PPL | final loss | wall clock | s/step |
|---|---|---|---|---|---|---|
| GPT-01 | TinyStories | baseline | 4.27 | 1.4516 | 4h31m27s | 0.0837 |
| gpt-04 | OpenWebText | baseline | **47.24** | 3.855 (best val) | 9h10m18s | 0.184 |
| GPT-06 | WikiText-103 | baseline | not run | | | |
| GPT-99 | nothing | | 1.0 | | | |
"""
NAMED = {"final PPL": "val/perplexity", "final loss": "val/loss"}


@pytest.fixture(scope="module")
def study() -> Any:
    return load(STUDY, profile="laptop")


def taken(study: Any, tmp_path: Path, text: str = LOG, name: str = "log.md", **columns: Any) -> Import:
    (tmp_path / name).write_text(text)
    table = columns.pop("table", None)
    return take(read_sheets(tmp_path / name), study, Columns(**columns), table=table, source="the log")


def test_an_older_log_comes_in_with_rows_and_reasons(study: Any, tmp_path: Path) -> None:
    found = taken(study, tmp_path, metrics=NAMED)
    assert [(e.experiment, e.metric, e.value, e.row) for e in found.entries] == [
        ("GPT-01", "val/perplexity", 4.27, 4),
        ("GPT-01", "val/loss", 1.4516, 4),
        ("GPT-04", "val/perplexity", 47.24, 5),
        ("GPT-04", "val/loss", 3.855, 5),
    ]
    assert {(left.row, left.why.partition(";")[0]) for left in found.left} == {
        (6, "no number"),
        (7, "the study gpt-oelm has no experiment 'GPT-99'"),
    }


def test_columns_named_like_metrics_are_taken_by_themselves(study: Any, tmp_path: Path) -> None:
    found = taken(study, tmp_path, "name,val/loss,notes\nGPT-01,1.5,fine\n", "log.csv")
    assert [(e.metric, e.value) for e in found.entries] == [("val/loss", 1.5)]
    assert found.left[0].what == "column 'notes'"


def test_a_row_a_number_and_other_names(study: Any, tmp_path: Path) -> None:
    text = "arm,metric,value\nold-base,val/loss,1.5\nold-base,ppl,4.5\nGPT-02,val/loss,\n"
    found = taken(
        study, tmp_path, text, "log.csv", metric="metric", value="value", renamed={"old-base": "GPT-01"},
        metrics={"ppl": "val/perplexity"},
    )  # fmt: skip
    assert [(e.experiment, e.metric, e.value) for e in found.entries] == [
        ("GPT-01", "val/loss", 1.5),
        ("GPT-01", "val/perplexity", 4.5),
    ]


@pytest.mark.parametrize(
    ("text", "columns", "says"),
    [
        ("a,b\nx,1\n", {}, "--experiment-column"),
        ("id,val/loss\nGPT-01,1\nGPT-01,2\n", {}, "in row 2 and 2 in row 3"),
        ("id,val/loss\nGPT-01,soon\n", {}, "no number"),
        (LOG, {"metrics": {"final PPL": "val/perplexty"}}, "val/perplexity"),
        (LOG, {"metrics": {"final PLP": "val/perplexity"}}, "final PPL"),
        (LOG, {"renamed": {"x": "GPT-1"}}, "GPT-01"),
        (LOG + "\n" + LOG, {"metrics": NAMED}, "--table N"),
        (LOG, {"metrics": NAMED, "table": 4}, "holds 1 tables"),
        ("no table at all", {}, "no table"),
    ],
)
def test_what_cannot_be_told_is_asked(study: Any, tmp_path: Path, text: str, columns: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        taken(study, tmp_path, text, "log.csv" if text[:1] in "ai" else "log.md", **columns)


def test_the_wanted_table_of_several_is_taken(study: Any, tmp_path: Path) -> None:
    other = LOG.replace("4.27", "4.30")
    found = taken(study, tmp_path, LOG + "\n" + other, metrics=NAMED, table=2)
    assert found.entries[0].value == 4.3


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("4.27", 4.27), (" −1,234.5 ", -1234.5), ("58.25 %", 58.25), ("3.2e-4", 3.2e-4), (".835", 0.835),
        ("4.27 ± 0.05", 4.27), ("4.27 +/- 0.05 (n = 3)", 4.27), ("34.42 (marked \"weird\")", 34.42), ("~5 nats", 5.0),
        ("12*", 12.0), ("-0", -0.0),
    ],
)  # fmt: skip
def test_a_cell_with_one_number(cell: str, number: float) -> None:
    assert one_number(cell) == number


@pytest.mark.parametrize(
    "cell",
    [
        "4,27",
        ".835/.876/.869",
        "4h31m27s",
        "0:35.92",
        "100k",
        "3 to 5",
        "1.2.3",
        "FAILED",
        "GPT-01",
        "1e999",
        "2e-5 256",
    ],
)
def test_a_cell_with_another_thing_is_never_taken_for_a_number(cell: str) -> None:
    assert isinstance(one_number(cell), str)
    assert one_number(cell)


@pytest.mark.parametrize("cell", ["", " — ", "n/a", "None", "-"])
def test_an_empty_cell_needs_no_reason(cell: str) -> None:
    assert one_number(cell) == ""


def test_what_is_printed_can_be_pasted_into_a_study(study: Any, tmp_path: Path) -> None:
    found = taken(study, tmp_path, metrics=NAMED)
    block = yaml.safe_load(pasted(found.entries, "log: #1"))["references"]
    assert block["GPT-01"] == {"val/perplexity": 4.27, "val/loss": 1.4516, "source": "log: #1"}
    text = STUDY.read_text()
    lines = text.splitlines(keepends=True)
    start = next(n for n, line in enumerate(lines) if line.startswith("references:"))
    end = next(n for n in range(start + 1, len(lines)) if lines[n][:1] not in (" ", "\n"))
    mine = tmp_path / "mine.yaml"
    mine.write_text("".join(lines[:start]) + pasted(found.entries, "log: #1") + "".join(lines[end:]))
    assert load(mine, profile="laptop").references["GPT-04"].values["val/loss"] == 3.855


def test_imports_stand_beside_the_study_s_own_references(study: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "lab")
    folder = store.study_folder(study.name, study.profile)
    append_references(folder, taken(study, tmp_path, metrics=NAMED).entries, source="the log", file="log.md")
    both = references_of(study, store)["GPT-01"]["val/perplexity"]
    assert [each.source for each in both] == [study.references["GPT-01"].source, "the log"]
    assert both[1].note == "log.md, row 4"
    assert isinstance(read_sheets(tmp_path / "log.md")[0], Sheet)
