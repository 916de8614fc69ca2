"""SIGKILL at random moments, also inside a checkpoint write: the end is bit for bit that of an undisturbed run."""

import os
import random
import signal
import time

import pytest
import torch

from ablab.contract.failure import EXIT_DONE
from ablab.store.events import read_events
from ablab.training.checkpoint import damage
from ablab.training.retention import find
from ablab.training.weights import load_tensors

PLAN = {
    "steps": 60,
    "log_every": 7,
    "validation": {"every": 10},
    "checkpoints": {"every": 3, "keep_every": 20},
    "schedule": {"warmup": 5},
}
MODEL = {"pause": 0.004, "dropout": 0.2, "width": 256}


def outcome(run):
    result = run.read_result()
    tensors = load_tensors(find(run.checkpoints, "last") / "model.safetensors")
    optimizer = load_tensors(find(run.checkpoints, "last") / "optimizer.safetensors")
    lines = [
        {key: value for key, value in event.items() if key not in ("t", "seconds", "attempt")}
        for event in read_events(run)
        if event["e"] in ("step", "validation")
    ]
    return result.metrics, result.best, result.facts, lines, tensors, optimizer


def assert_same(first, second):
    assert first[:4] == second[:4]
    for one, two in zip(first[4:], second[4:], strict=True):
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def undisturbed(template, make_run):
    run = make_run("train-whole", parameters=PLAN, model=MODEL)
    assert template.run(run) == EXIT_DONE
    return outcome(run)


def run_with_kills(template, run, kill_when, *, most=6):
    """Start the run again and again, killing it when `kill_when` says so; return how often it was killed."""
    kills = 0
    while True:
        pid = template.start(run)
        while pid not in template.exits:
            if kills < most and kill_when(run):
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.0005)
        if template.wait(pid) == EXIT_DONE:
            return kills
        kills += 1
        assert template.exits[pid] == -signal.SIGKILL


def test_kills_at_random_moments_change_nothing(template, make_run, undisturbed):
    rng = random.Random(7)
    run = make_run("train-cut", parameters=PLAN, model=MODEL)
    moment = [time.monotonic() + rng.uniform(0.1, 0.8)]

    def now(_):
        if time.monotonic() < moment[0]:
            return False
        moment[0] = time.monotonic() + rng.uniform(0.2, 0.8)
        return True

    assert run_with_kills(template, run, now) >= 1
    assert_same(outcome(run), undisturbed)


def test_kills_inside_a_checkpoint_write_change_nothing(template, make_run, undisturbed):
    run = make_run("train-cut", parameters=PLAN, model=MODEL)
    seen: set[str] = set()

    def writing(run):
        names = [path.name for path in run.checkpoints.iterdir()] if run.checkpoints.is_dir() else []
        fresh = {name for name in names if name.startswith(".tmp-step")} - seen
        seen.update(fresh)
        return bool(fresh) and any(name.startswith("step-") for name in names)

    assert run_with_kills(template, run, writing) >= 3
    assert not list(run.checkpoints.glob(".tmp-*"))
    assert all(damage(folder) == [] for folder in run.checkpoints.glob("step-*"))
    assert_same(outcome(run), undisturbed)


def test_a_checkpoint_cut_after_the_fact_is_passed_over(template, make_run, undisturbed):
    run = make_run("train-cut", parameters=PLAN, model=MODEL)
    ready = lambda run: len(list(run.checkpoints.glob("step-*"))) >= 2 if run.checkpoints.is_dir() else False  # noqa: E731
    pid = template.start(run)
    while not ready(run):
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    template.wait(pid)
    newest = max(run.checkpoints.glob("step-*"))
    with (newest / "optimizer.safetensors").open("r+b") as file:
        file.truncate(100)
    with run.attempt(1).events.open("ab") as file:
        file.write(b'{"e": "step", "st')
    assert template.run(run) == EXIT_DONE
    assert_same(outcome(run), undisturbed)
