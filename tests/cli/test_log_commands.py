"""The commands around the experiment log, as a user types them, on a store as a launch leaves it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ablab.store.layout import Store
from tests.cli.conftest import Ablab
from tests.report.filled import STUDY, fill, frozen_launch, smoke

SMOKE = (str(STUDY), "-p", "smoke")
LOG = "| id | perplexity |\n|---|---|\n| trained | 7.5 |\n| blind | not run |\n"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = Store(tmp_path_factory.mktemp("lab"))
    study = smoke()
    frozen_launch(store, study, fill(store, study))
    return str(store.root)


def test_notes_are_written_checked_listed_and_shown(ablab: Ablab, lab: str) -> None:
    env = {"ABLAB_STORE": lab}
    about = ("-k", "hypothesis", "-e", "blind", "-m", "test/perplexity")
    written = json.loads(ablab("note", *SMOKE[:1], "it cannot see", *SMOKE[1:], *about, "--json", **env).stdout)
    assert (written["kind"], written["experiment"], written["status"]["done"]) == ("hypothesis", "blind", 13)
    listed = ablab("notes", *SMOKE, **env).stdout
    assert "hypothesis on blind test/perplexity: it cannot see" in listed
    assert json.loads(ablab("notes", *SMOKE, "-k", "next", "--json", **env).stdout)["notes"] == []
    for arguments, says in (
        (("text", "-e", "blnd"), "did you mean blind"),
        (("text", "-m", "test/perplexty"), "test/perplexity"),
        (("  ",), "empty"),
        (("loss", "went", "up"), "quote the text"),
    ):
        done = ablab("note", SMOKE[0], *arguments, *SMOKE[1:], code=2, **env)
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_tables_in_every_format_say_the_same(ablab: Ablab, lab: str, tmp_path: Path) -> None:
    env = {"ABLAB_STORE": lab}
    narrow = ("-c", "sound", "-m", "test/perplexity")
    rows = list(csv.DictReader(io.StringIO(ablab("table", *SMOKE, *narrow, "-f", "csv", **env).stdout)))
    trained = next(row for row in rows if row["experiment"] == "trained")
    record = json.loads(ablab("table", *SMOKE, *narrow, "--json", **env).stdout)
    assert float(trained["mean"]) == next(r["mean"] for r in record["rows"] if r["experiment"] == "trained")
    shown = f"{float(trained['mean']):.3g}"[:3]
    assert shown in ablab("table", *SMOKE, *narrow, **env).stdout
    ablab("table", *SMOKE, *narrow, "-f", "latex", "-o", "t.tex", **env)
    assert shown in (tmp_path / "t.tex").read_text()
    assert "did you mean" in ablab("table", *SMOKE, "-m", "test/perplexty", code=2, **env).stderr


def test_figures_are_written_and_nothing_to_draw_is_an_answer(ablab: Ablab, lab: str, tmp_path: Path) -> None:
    env = {"ABLAB_STORE": lab}
    made = json.loads(ablab("figure", *SMOKE, "-c", "sound", "-o", "figures", "-f", "csv", "--json", **env).stdout)
    assert {Path(path).name.partition("-")[0] for path in made["files"]} == {"curves", "gap", "points"}
    ablab("figure", *SMOKE, "-c", "sound", "-k", "points", "-o", "p.svg", **env)
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    assert "one file" in ablab("figure", *SMOKE, "-o", "p.pdf", code=2, **env).stderr
    assert "did you mean gap" in ablab("figure", *SMOKE, "-k", "gp", code=2, **env).stderr
    assert "nothing to draw" in ablab("figure", *SMOKE, code=1).stdout


def test_arms_and_runs_are_compared_from_the_store_alone(ablab: Ablab, lab: str, tmp_path: Path) -> None:
    env = {"ABLAB_STORE": lab}
    text = ablab("compare", "trained", "blind", **env).stdout
    assert "Exploratory" in text and "model.attention.output" in text
    record = json.loads(ablab("compare", "trained/42/train", "blind/42/train", "--json", **env).stdout)
    assert {row["metric"] for row in record["metrics"]} == {"val/loss", "val/perplexity"}
    ablab("compare", "trained", "blind", "--study", SMOKE[0], "-p", "smoke", "--figure", "f", "-o", "c.md", **env)
    assert (tmp_path / "c.md").exists() and list((tmp_path / "f").glob("*.svg"))
    assert "did you mean trained" in ablab("compare", "traind", "blind", code=2, **env).stderr


def test_figures_of_an_older_log_come_in_beside_ours(ablab: Ablab, lab: str, tmp_path: Path) -> None:
    env = {"ABLAB_STORE": lab}
    (tmp_path / "log.md").write_text(LOG)
    named = ("-m", "perplexity=test/perplexity", "-s", "an older log")
    looked = ablab("import", SMOKE[0], "log.md", *SMOKE[1:], *named, "--dry-run", **env).stdout
    assert "would be imported" in looked and "left out: row 4" in looked
    assert "references:" in ablab("import", SMOKE[0], "log.md", *SMOKE[1:], *named, "--print", **env).stdout
    assert "an older log" not in ablab("table", *SMOKE, **env).stdout
    record = json.loads(ablab("import", SMOKE[0], "log.md", *SMOKE[1:], *named, "--json", **env).stdout)
    assert [entry["value"] for entry in record["references"]] == [7.5]
    assert "an older log" in ablab("table", *SMOKE, **env).stdout
    assert "OLD=NEW" in ablab("import", SMOKE[0], "log.md", *SMOKE[1:], "-m", "x", code=2, **env).stderr


def test_a_digest_tells_the_week(ablab: Ablab, lab: str, tmp_path: Path) -> None:
    env = {"ABLAB_STORE": lab}
    assert "## gpt-oelm/smoke" in ablab("digest", "--since", "1d", **env).stdout
    assert json.loads(ablab("digest", "--json", **env).stdout)["studies"][0]["finished"]
    ablab("digest", "-o", "week.md", **env)
    assert "Finished" in (tmp_path / "week.md").read_text()
    assert "expected a duration" in ablab("digest", "--since", "soon", code=2, **env).stderr
    assert "no store" in ablab("digest", code=2).stderr


def test_the_report_is_served_from_the_store(lab: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ablab.cli.main", "serve", *SMOKE, "--port", "0", "--json"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"ABLAB_STORE": lab, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        record = json.loads("".join(line for _, line in zip(range(4), lines, strict=False)))
        token = record["url"].partition("token=")[2]
        asked = urllib.request.Request(record["url"].partition("?")[0], headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert b"gpt-oelm" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(record["url"].partition("?")[0], timeout=30)
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
