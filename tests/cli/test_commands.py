"""Every command: its help, its exit codes, its JSON, and that a mistake is told without a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import STUDIES, Ablab

COMMANDS = (
    "check", "plan", "run", "status", "watch", "logs", "stop", "report", "table", "figure", "compare",
    "serve", "digest", "note", "notes", "import", "show", "explain", "env", "schema", "new", "gc",
)  # fmt: skip


def test_help_lists_every_command(ablab: Ablab) -> None:
    text = ablab("--help").stdout
    assert [name for name in COMMANDS if f"  {name} " not in text] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(ablab: Ablab, command: str) -> None:
    text = ablab(command, "--help").stdout
    assert text.startswith("Usage:")
    assert len(text.splitlines()) > 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("check", "missing.yaml"), "missing.yaml"),
        (("plan", str(STUDIES / "gpt-oelm.yaml"), "model.layer=2"), "layers"),
        (("plan", str(STUDIES / "gpt-oelm.yaml"), "nonsense"), "key=value"),
        (("plan", str(STUDIES / "gpt-oelm.yaml"), "--profile", "laptp"), "laptop"),
        (("run", str(STUDIES / "gpt-oelm.yaml"), "--profile", "smoke", "--until", "tomorrow"), "HH:MM"),
        (("run", str(STUDIES / "gpt-oelm.yaml"), "--profile", "smoke", "--devices", "a"), "GPU indices"),
        (("explain", "model.widht"), "model.width"),
        (("show", "nothing"), "no run"),
        (("logs", "nothing"), "no run"),
    ],
)
def test_a_mistake_names_what_was_expected(ablab: Ablab, arguments: tuple[str, ...], says: str) -> None:
    done = ablab(*arguments, code=2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_undeclared_difference_is_an_error_until_it_is_declared(ablab: Ablab, tmp_path: Path) -> None:
    ablab("new", "mine.yaml")
    text = (tmp_path / "mine.yaml").read_text()
    wrong = text.replace("model: {width: 128}", "model: {width: 128, layers: 3}")
    (tmp_path / "mine.yaml").write_text(wrong)
    done = ablab("check", "mine.yaml", code=1)
    assert "model.layers: 4 -> 3  (NOT DECLARED)" in done.stdout
    assert "nothing was started" in ablab("run", "mine.yaml", code=2).stderr
    (tmp_path / "mine.yaml").write_text(
        wrong.replace("factor: model.width", "factor: model.width\n    also: [model.layers]")
    )
    assert "model.layers: 4 -> 3  (declared)" in ablab("check", "mine.yaml").stdout


@pytest.mark.parametrize("task", ["language-modeling", "vision-language", "retrieval", "summarization"])
@pytest.mark.parametrize("profile", ["laptop", "smoke"])
def test_a_first_study_of_every_task_is_sound(ablab: Ablab, task: str, profile: str) -> None:
    ablab("new", "mine.yaml", "--task", task)
    assert "0 errors" in ablab("check", "mine.yaml", "--profile", profile).stdout
    assert json.loads(ablab("plan", "mine.yaml", "--profile", profile, "--json").stdout)["runs"]


def test_new_refuses_to_overwrite(ablab: Ablab) -> None:
    ablab("new", "mine.yaml")
    assert "exists" in ablab("new", "mine.yaml", code=2).stderr


@pytest.mark.parametrize("study", [path.stem for path in sorted(STUDIES.glob("*.yaml"))])
def test_a_built_in_study_is_copied_whole(ablab: Ablab, tmp_path: Path, study: str) -> None:
    ablab("new", "mine.yaml", "--like", study)
    assert (tmp_path / "mine.yaml").read_text() == (STUDIES / f"{study}.yaml").read_text()
    assert "0 errors" in ablab("check", "mine.yaml", "--profile", "smoke").stdout


def test_an_unknown_study_names_the_nearest(ablab: Ablab) -> None:
    assert "did you mean gpt-oelm?" in ablab("new", "mine.yaml", "--like", "gpt-olm", code=2).stderr
    both = ablab("new", "mine.yaml", "--like", "gpt-oelm", "--task", "retrieval", code=2).stderr
    assert "found --task and --like; give one of" in both


def test_check_and_plan_speak_json(ablab: Ablab) -> None:
    found = json.loads(ablab("check", str(STUDIES / "gpt-oelm.yaml"), "--profile", "smoke", "--json").stdout)
    assert {finding["id"] for finding in found["findings"]} >= {"learning-rate-differs", "single-seed"}
    plan = json.loads(ablab("plan", str(STUDIES / "gpt-oelm.yaml"), "--profile", "smoke", "--json").stdout)
    assert plan["runs"]
    json.loads(ablab("schema").stdout)
    assert json.loads(ablab("env", "--json").stdout)["python"]


def test_a_study_from_new_runs_and_every_view_of_it_works(ablab: Ablab, tmp_path: Path) -> None:
    """One small study through every command that looks at a store."""
    ablab("new", "mine.yaml")
    small = ("mine.yaml", "--profile", "smoke")
    ran = ablab("run", *small, "--json", "seeds=[42]", "pipeline.train.steps=4")
    assert json.loads(ran.stdout)["failed"] == {}
    again = ablab("run", *small, "seeds=[42]", "pipeline.train.steps=4")
    assert "0 runs to do" in again.stdout
    states = json.loads(ablab("status", *small, "seeds=[42]", "pipeline.train.steps=4", "--json").stdout)
    assert {row["status"] for row in states["runs"]} == {"done"}
    assert "done" in ablab("status", *small, "seeds=[42]", "pipeline.train.steps=4", "--oneline").stdout
    assert "nothing unfinished" in ablab("status").stdout
    run = next(row["run"] for row in states["runs"] if row["stage"] == "train" and row["experiment"] == "narrow")
    shown = json.loads(ablab("show", run, "--json").stdout)
    assert shown["result"]["metrics"]["val/loss"] > 0
    assert "val/loss" in ablab("show", "narrow/42/train").stdout
    assert ablab("show", "narrow/42/evaluate", "evaluation-test.json", code=None).returncode in (0, 2)
    assert "threads" in ablab("show", run, "attempts/1/numerics.json").stdout
    told = ablab("logs", run).stdout
    assert "attempt 1 starts" in told and "val/loss" in told and told.rstrip().endswith("ends: done")
    assert ablab("logs", run, "-n", "1", "--follow").stdout == told.splitlines(keepends=True)[-1]
    assert "python" in ablab("env", run).stdout
    assert "to remove" in ablab("gc", *small, "seeds=[42]", "pipeline.train.steps=4").stdout
    assert "nothing was running" in ablab("stop").stdout
    written = ablab("report", *small, "seeds=[42]", "pipeline.train.steps=4", "-o", "report.md")
    assert "width" in written.stdout
    text = (tmp_path / "report.md").read_text()
    for title in ("Verdicts", "Results", "Findings", "Issues and resolutions", "Environment", "Commands"):
        assert f"## {title}" in text
