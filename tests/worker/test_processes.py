"""Two processes under torchrun: the same loss and weights as one, and the failure of either is the run's."""

import subprocess
import sys

import pytest
import torch

from ablab.contract.failure import EXIT_DONE
from ablab.contract.order import Resources
from ablab.store.events import read_attempt_events
from ablab.training.retention import find
from ablab.training.weights import load_tensors

PLAN = {
    "steps": 10,
    "batch": 7,
    "log_every": 3,
    "micro_batch": 2,
    "validation": {"every": 5},
    "checkpoints": {"every": 4},
}


def torchrun(run, environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "ablab.worker", str(run.order_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    return done.returncode, done.stderr


def weights(run):
    return load_tensors(find(run.checkpoints, "last") / "model.safetensors")


def test_two_processes_learn_what_one_learns(template, make_run, environment):
    one = make_run("train-one", parameters=PLAN, model={"dropout": 0.0})
    two = make_run("train-two", parameters=PLAN, model={"dropout": 0.0}, resources=Resources(world_size=2))
    assert template.run(one) == EXIT_DONE
    code, said = torchrun(two, environment)
    assert code == 0, said
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(two)[name], tensor, rtol=1e-4, atol=1e-6)
    first, second = one.read_result(), two.read_result()
    assert second.numerics.world_size == 2 and second.facts["tokens.seen"] == first.facts["tokens.seen"]
    assert second.metrics["val/loss"] == pytest.approx(first.metrics["val/loss"], rel=1e-5)
    lines = [[e["loss"] for e in read_attempt_events(r.attempt(1).events) if e.get("e") == "step"] for r in (one, two)]
    assert lines[1] == pytest.approx(lines[0], rel=1e-5)
    assert two.attempts() == [1]


def test_a_failure_of_the_second_process_is_the_runs(make_run, environment):
    # The last sample of the first epoch's first batch lies in the second process's share.
    run = make_run(
        "train-two", parameters=PLAN | {"batch": 50}, model={"poison": 49}, resources=Resources(world_size=2)
    )
    code, said = torchrun(run, environment)
    assert code != 0
    end = run.attempt(1).read_end()
    assert end["kind"] == "not-finite", said
    assert 49 in end["detail"]["samples"] and end["detail"]["step"] == 0
