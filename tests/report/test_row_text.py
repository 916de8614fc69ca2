"""One row an experiment and seed: the store's own numbers, whole, and nothing where there is none."""

from __future__ import annotations

import csv
import io

import pytest

from ablab.contract.failure import ConfigError
from ablab.report.row_text import rows_csv
from tests.analysis.conftest import METRIC, make

ARMS = {"base": [10.0, 20.0, 30.0], "=good": [8.0, 16.01, 24.02], "one": [9.0, None, None], "none": [None] * 3}


def rows(**options: object) -> list[dict[str, str]]:
    _, results = make(ARMS)
    return list(csv.DictReader(io.StringIO(rows_csv(results, **options))))


def test_there_is_a_row_for_every_arm_and_seed_with_a_number() -> None:
    found = rows()
    study, _ = make(ARMS)
    wanted = [("base", seed) for seed in study.seeds] + [("'=good", seed) for seed in study.seeds]
    assert [(row["experiment"], int(row["seed"])) for row in found] == [*wanted, ("one", study.seeds[0])]
    assert [float(row[METRIC]) for row in found] == [10.0, 20.0, 30.0, 8.0, 16.01, 24.02, 9.0]
    assert {row["study"] for row in found} == {study.name}


def test_arms_asked_for_by_name_are_there_without_numbers_too() -> None:
    found = rows(arms=["one"])
    assert [row[METRIC] for row in found] == ["9.0", "", ""]
    assert rows(arms=["*o*"])[0]["experiment"] == "'=good"


def test_metrics_are_chosen_by_pattern() -> None:
    assert METRIC in rows(metrics=["*"])[0]
    assert f"{METRIC}@best" in rows(metrics=[f"{METRIC}@best"], arms=["base"])[0]


@pytest.mark.parametrize("options", [{"arms": ["nobody"]}, {"metrics": ["nothing"]}, {"metrics": [f"{METRIC}@first"]}])
def test_what_there_is_none_of_is_named(options: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError, match=r"nobody|nothing|@first"):
        rows(**options)
