"""Unmodified programs of four habits run as studies; those that can resume end as if nobody had killed them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ablab.lab import Lab
from ablab.store.events import read_events

EXAMPLES = Path(__file__).parents[2] / "examples"
lightning = pytest.mark.skipif(
    importlib.util.find_spec("pytorch_lightning") is None, reason="pytorch-lightning is not installed"
)
awk = pytest.mark.skipif(not (shutil.which("awk") and shutil.which("xz")), reason="awk or xz is not installed")


def metrics(lab: Lab) -> dict[str, float]:
    (run,) = lab.plan().runs.values()
    result = lab.store.run(run.name).read_result()
    assert result is not None, lab.store.run(run.name).read_state()
    return dict(result.metrics)


def kill_when(lab: Lab, ready) -> threading.Thread:
    """Kill the program's worker, hard, as soon as `ready` says so of its run folder."""
    (run,) = lab.plan().runs.values()
    folder = lab.store.run(run.name)

    def wait_and_kill() -> None:
        limit = time.monotonic() + 120
        while not ready(folder) and time.monotonic() < limit:
            time.sleep(0.005)
        holder = json.loads(folder.claim_path.read_text())
        os.kill(holder["pid"], signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


@awk
def test_a_program_that_is_not_python_reaches_a_verdict(open_example):
    lab = open_example("awk")
    summary = lab.run()
    assert len(summary.done) == 3 and not summary.failed
    (verdict,) = lab.verdicts
    assert [variant.verdict for variant in verdict.variants] == ["met"]
    text = lab.report().read_text()
    assert "not audited" in text
    direct = subprocess.run(
        "xz -dc src/ablab/bundled/austen/northanger-abbey.txt.xz | head -n 600 | awk -v k=3 -f examples/awk/kgram.awk",
        shell=True, cwd=EXAMPLES.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = float(direct.stdout.splitlines()[-1].split(": ")[1].split()[0])
    assert lab.results.value("triples", 0, "test/bits_per_character").last == said


READY = {
    "torch_loop": lambda folder: (folder.artifacts / "last.pt").exists(),
    "trainer": lambda folder: any(folder.artifacts.glob("checkpoint-*/trainer_state.json")),
    "lightning": lambda folder: (folder.artifacts / "last.ckpt").exists(),
}


def only(open_example, name: str, arm: str, *overrides: str, store: str) -> Lab:
    others = [f"experiments.{other}=null" for other in load_arms(name) if other != arm]
    return open_example(name, *overrides, *others, "seeds=[1]", "comparisons=null", store=store)


def run_and_kill(lab: Lab, name: str) -> None:
    thread = kill_when(lab, READY[name])
    summary = lab.run()
    thread.join()
    assert len(summary.done) == 1, summary
    (run,) = lab.plan().runs.values()
    result = lab.store.run(run.name).read_result()
    assert result.attempts == 2 and result.facts["command.resumed"]
    starts = [event["step"] for event in read_events(lab.store.run(run.name)) if event["e"] == "start"]
    assert starts[0] == 0 and starts[1] > 0


@pytest.mark.parametrize(
    ("name", "arm", "change", "weights"),
    [
        ("torch_loop", "narrow", "parameters.steps=300", "last.pt"),
        ("trainer", "one", "parameters.max_steps=40", "model.safetensors"),
    ],
)
def test_a_killed_script_ends_with_the_weights_of_an_undisturbed_one(
    open_example, tmp_path, name, arm, change, weights
):
    lab = only(open_example, name, arm, change, store="lab")
    run_and_kill(lab, name)
    assert metrics(lab).keys() >= {"train/loss", "val/loss"}
    (run,) = lab.plan().runs.values()
    folder = lab.store.run(run.name)
    command = [word.replace(str(folder.artifacts), str(tmp_path)) for word in folder.read_result().facts["command"]]
    resume = next(position for position, word in enumerate(command) if word.startswith("--resume"))
    alone = [sys.executable, *command[1:resume]]
    # Sums over threads depend on their number.
    threads = {"OMP_NUM_THREADS": str(folder.read_result().numerics.threads)}
    subprocess.run(alone, cwd=EXAMPLES / name, check=True, capture_output=True, env=os.environ | threads)
    mine, theirs = (tensors(path / weights) for path in (folder.artifacts, tmp_path))
    assert mine.keys() == theirs.keys()
    assert all(torch.allclose(mine[part], theirs[part], rtol=1e-5, atol=1e-7) for part in mine)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"] if path.suffix == ".pt" else load_file(path)


@lightning
def test_a_killed_lightning_script_goes_on(open_example):
    lab = only(open_example, "lightning", "narrow", "parameters.max_epochs=5", store="lab")
    run_and_kill(lab, "lightning")
    # Lightning restores no random state on resume, so the end is near, not the same.
    assert metrics(lab)["val/loss"] < 3.5


def load_arms(name: str) -> list[str]:
    import yaml

    return list(yaml.safe_load((EXAMPLES / name / "study.yaml").read_text())["experiments"])


def test_a_command_line_becomes_a_study_that_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(
        "import argparse\n"
        "p = argparse.ArgumentParser(); p.add_argument('--lr', type=float); p.add_argument('--seed', type=int)\n"
        "a = p.parse_args()\n"
        "for step in range(3):\n"
        "    print(f'step {step}: val loss {a.lr * a.seed / (step + 1):.4f}')\n"
    )
    ablab = [sys.executable, "-m", "ablab.cli.main"]
    typed = "python train.py --lr 3e-4 --seed 1"
    for command in (["new", "mine.yaml", "--command", typed], ["run", "mine.yaml", "--profile", "smoke"]):
        done = subprocess.run([*ablab, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "ratio 2 [" in done.stdout and "NOT MET" in done.stdout
