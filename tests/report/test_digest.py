"""What happened in a period: only what lies in it, across studies, from the store alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ablab.cli.digest import moment
from ablab.contract.failure import ConfigError
from ablab.report.digest import Digest, Period, make_digest
from ablab.report.digest_text import as_json, document
from ablab.report.markdown import render
from ablab.store.files import append_line
from ablab.store.layout import Store
from ablab.store.notes import append_note
from tests.report.filled import fill, frozen_launch, smoke

NOW = 1_800_000_000.0
DAY = 86400.0
FAILED = ("blind", 123, "train")


def verdict(when: float, word: str, *, sensitive: bool | None = None, arm: str = "frozen-orthogonal") -> dict[str, Any]:
    condition = {"text": "test/perplexity ratio <= 1.05", "point": 1.01, "low": 0.99, "high": 1.03, "n": 2}
    return {
        "comparison": "sound", "criterion": "ratio <= 1.05", "baseline": "trained", "sensitive": sensitive,
        "time": when,
        "variants": [{"experiment": arm, "verdict": word, "conditions": [condition]}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which everything finished a day ago, but for one failure."""
    made = Store(tmp_path_factory.mktemp("lab"))
    study = smoke()
    plan = fill(made, study, now=NOW - DAY, status={FAILED: "failed", ("blind", 123, "evaluate"): "pending"})
    frozen_launch(made, study, plan)
    folder = made.study_folder(study.name, study.profile)
    append_note(folder, "blind fell over", kind="issue", experiment="blind", now=NOW - DAY)
    append_note(folder, "long ago", now=NOW - 90 * DAY)
    for when, word in ((NOW - 30 * DAY, "undecided"), (NOW - 2 * DAY, "not met"), (NOW - DAY, "met")):
        append_line(folder / "verdicts.jsonl", verdict(when, word))
    return made


def digest(store: Store, since: float = 7 * DAY, until: float = 0.0) -> Digest:
    return make_digest(store, Period(since=NOW - since, until=NOW - until))


def test_a_week_tells_what_finished_failed_and_was_decided(store: Store) -> None:
    (study,) = digest(store).studies
    done = [(run.arm, run.seed, run.stage) for run in study.finished]
    assert ("frozen-orthogonal", 42, "evaluate") in done
    assert FAILED not in done
    assert [(run.arm, run.seed, run.stage) for run in study.failed] == [FAILED]
    assert [issue["kind"] for _, issue in study.issues] == ["not-finite"]
    assert [note.text for note in study.notes] == ["blind fell over"]
    assert study.open == {"failed": 1}
    assert study.seconds == 60.0 * len(done)
    (decision,) = study.decided
    assert [(variant["verdict"], was) for variant, was in decision.rows()] == [("met", "undecided")]
    assert decision.changes == 2


def test_nothing_outside_of_the_period_is_told(store: Store) -> None:
    hours = digest(store, since=0.5 * DAY)
    assert hours.studies == ()
    assert "Nothing happened" in render(document(hours))
    old = digest(store, since=100 * DAY, until=50 * DAY)
    assert [note.text for study in old.studies for note in study.notes] == ["long ago"]
    assert [study.finished for study in old.studies] == [[]]


def test_a_verdict_that_came_back_to_what_it_was_is_no_news(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path)
    path = other.study_folder("s", "full") / "verdicts.jsonl"
    for days, word in ((30, "met"), (3, "undecided"), (2, "met")):
        append_line(path, verdict(NOW - days * DAY, word))
    assert digest(other).studies == ()
    append_line(path, verdict(NOW - DAY, "undecided", sensitive=False))
    text = render(document(digest(other)))
    assert "not sensitive" in text


def test_the_document_is_markdown_whose_tables_are_whole(store: Store) -> None:
    text = render(document(digest(store)))
    assert "## gpt-oelm/smoke" in text
    assert "| evaluate 42, 123; train 42, 123 |" in text
    assert "test/perplexity" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
    record = json.loads(json.dumps(as_json(digest(store))))
    assert {run["experiment"] for run in record["studies"][0]["finished"]} >= {"trained", "blind"}
    assert record["studies"][0]["failed"][0]["kind"] == "not-finite"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>|`x`\n# h"
    store = Store(tmp_path)
    folder = store.study_folder("s", "full")
    append_note(folder, evil, experiment=evil, now=NOW - DAY)
    append_line(folder / "verdicts.jsonl", verdict(NOW - DAY, "met", arm=evil))
    text = render(document(digest(store)))
    assert not re.search(r"(?<!\\)<img", re.sub(r"`[^`]*`", "", text))
    assert not any(line.startswith("# h") for line in text.splitlines())


def test_a_damaged_file_is_named_and_hides_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    study = smoke()
    fill(store, study, now=NOW - DAY)
    first, second, *_ = list(store.runs())
    first.state_path.write_text("{")
    (store.study_folder("s", "full")).mkdir(parents=True)
    (store.study_folder("s", "full") / "notes.jsonl").write_text("nonsense\n")
    second.issues_path.write_text("also nonsense\n")
    found = digest(store)
    assert len(found.problems) == 3
    assert "Files that could not be read" in render(document(found))
    assert found.studies[0].finished


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 7 * DAY), ("2w", 14 * DAY), ("12h", DAY / 2), ("90 min", 5400.0), ("1.5w", 10.5 * DAY)]
)
def test_durations_count_back_from_now(text: str, seconds: float) -> None:
    assert moment("--since", text, now=NOW) == NOW - seconds


def test_dates_are_local_and_anything_else_is_a_mistake() -> None:
    assert moment("--since", "2026-01-31", now=NOW) < moment("--since", "2026-01-31T08:00", now=NOW)
    for wrong in ("soon", "7q", "w", ""):
        with pytest.raises(ConfigError, match="expected a duration"):
            moment("--since", wrong, now=NOW)
