"""A secret stops a launch before anything is written; what is inherited reaches programs and no file of the store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ablab.contract.failure import ConfigError
from ablab.lab import load

SECRET = "Zx81kQwPv93mTtUe"
STUDY = """
name: quiet
task: command
seeds: [0]
defaults:
  pipeline:
    train: {{kind: command, command: "python script.py{more}", code: [script.py], env: {{A: b{env}}}}}
experiments:
  base: {{purpose: "{purpose}"}}
"""
SCRIPT = "import os, sys; print('token', os.environ['SERVICE']); print(os.environ['SERVICE'], file=sys.stderr)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / ".env").write_text(f"SERVICE={SECRET}\n")
    monkeypatch.setenv("HF_TOKEN", "hf_" + SECRET[::-1] * 2)
    monkeypatch.setenv("SERVICE", SECRET)
    monkeypatch.setenv("ABLAB_ENV_FILES", str(tmp_path / ".env"))
    return tmp_path


def write(folder: Path, *, more: str = "", env: str = "", purpose: str = "") -> Path:
    path = folder / "study.yaml"
    path.write_text(STUDY.format(more=more, env=env, purpose=purpose))
    return path


def files_with_secrets(folder: Path) -> list[Path]:
    hidden = (SECRET.encode(), SECRET[::-1].encode())
    return [p for p in folder.rglob("*") if p.is_file() and any(one in p.read_bytes() for one in hidden)]


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ({"more": f" --api-key {SECRET}"}, "pipeline.train.command"),
        ({"more": f" {SECRET}"}, "pipeline.train.command"),
        ({"env": f", WANDB_API_KEY: {SECRET}"}, "pipeline.train.env"),
    ],
)
def test_a_secret_in_an_order_stops_the_launch_and_names_its_place(folder: Path, where, place):
    lab = load(write(folder, **where), store=folder / "lab")
    with pytest.raises(ConfigError) as raised:
        lab.run()
    message = str(raised.value)
    assert place in message and ".env" in message and SECRET not in message
    assert not (folder / "lab" / "runs").exists() and not (folder / "lab" / "launches").exists()


def test_a_secret_in_the_code_stops_the_launch(folder: Path):
    (folder / "script.py").write_text(f"x = 1\nkey = '{SECRET}'\n")
    with pytest.raises(ConfigError, match=r"script\.py:2: the code holds a secret"):
        load(write(folder), store=folder / "lab").run()
    assert files_with_secrets(folder / "lab") == []


def test_no_file_of_the_store_holds_what_a_program_inherits(folder: Path):
    """Environment, .env, study text, git diff, log, report, and the command line: none of it is kept."""
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "script.py"], [*name, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    (folder / "notes.txt").write_text(SECRET)
    study = write(folder, purpose=f"a note that holds {SECRET} by mistake")
    done = subprocess.run(
        [sys.executable, "-m", "ablab.cli.main", "run", str(study), f"question={SECRET}", "--store", "lab"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    logs = [path.read_text() for path in (folder / "lab").rglob("log.txt")]
    assert any("token [redacted]" in text for text in logs)
    assert files_with_secrets(folder / "lab") == []
