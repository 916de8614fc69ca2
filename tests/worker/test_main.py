import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ablab.contract.failure import EXIT_CLAIMED, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from ablab.contract.order import Input, Numerics, Resources
from ablab.contract.result import TIMES
from ablab.store.claims import acquire
from ablab.store.events import read_attempt_events, read_events
from ablab.store.files import read_json
from ablab.training.retention import find
from ablab.training.weights import load_tensors

PLAN = {"validation": {"every": 4}, "checkpoints": {"every": 2}}


def wait_for(condition, timeout=60.0):
    limit = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


def weights(run):
    return load_tensors(find(run.checkpoints, "last") / "model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def curve(run):
    return [
        {key: value for key, value in event.items() if key not in ("t", "seconds", "attempt")}
        for event in read_events(run)
        if event["e"] in ("step", "validation")
    ]


def test_a_run_leaves_result_state_events_and_records(template, make_run):
    run = make_run(parameters=PLAN)
    assert template.run(run) == EXIT_DONE
    result, state = run.read_result(), run.read_state()
    assert result.key == run.key and result.metrics["val/loss"] == state.last["val/loss"]
    assert state.status == "done" and state.step == state.steps == 12 and state.progress == 1.0
    assert run.attempt(1).read_end()["kind"] == "done"
    assert result.facts["parameters.total"] == 385 and result.facts["logits.scale"] == 1.0
    assert result.peak["rss"] > 50 << 20 and result.numerics.versions["torch"] == torch.__version__
    assert read_json(run.attempt(1).path / "numerics.json")["precision"] == "fp32"
    assert read_json(run.attempt(1).environment)["python"]
    assert next(event["e"] for event in read_attempt_events(run.attempt(1).events) if event.get("e")) == "start"
    assert not run.claim_path.exists()
    assert not list(run.path.rglob(".tmp-*"))


def test_named_seconds_sum_to_the_wall_clock(template, make_run):
    run = make_run(parameters=PLAN | {"steps": 100}, model={"pause": 0.01})
    began = time.time()
    assert template.run(run) == EXIT_DONE
    wall = time.time() - began
    named = run.read_result().time
    assert set(named) == set(TIMES) and named["forward-backward"] > 1.0
    assert sum(named.values()) <= wall
    events = read_attempt_events(run.attempt(1).events)
    account = next(event for event in reversed(events) if event.get("e") == "time")
    began = next(event["t"] for event in events if event.get("e") == "start") - named["start-up"]
    assert sum(named.values()) == pytest.approx(account["t"] - began, rel=0.01, abs=0.2)


def test_a_finished_run_is_not_touched(template, make_run):
    run = make_run(parameters=PLAN)
    assert template.run(run) == EXIT_DONE
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    assert template.run(run) == EXIT_DONE
    after = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    log = run.attempt(1).log
    assert before.keys() - {log} == after.keys() - {log}
    assert all(after[path] == stamp for path, stamp in before.items() if path != log)


def test_a_claimed_run_is_left_to_its_holder(template, make_run):
    run = make_run()
    with acquire(run.claim_path):
        assert template.run(run) == EXIT_CLAIMED
    assert run.read_state() is None and not run.done


def test_a_stop_checkpoints_and_the_next_attempt_ends_the_same(template, make_run):
    whole, cut = (make_run(f"train-{name}", parameters=PLAN | {"steps": 40}, model={"pause": 0.01}) for name in "ab")
    assert template.run(whole) == EXIT_DONE
    pid = template.start(cut)
    wait_for(lambda: list(cut.checkpoints.glob("step-*")))
    os.kill(pid, signal.SIGTERM)
    assert template.wait(pid) == EXIT_STOPPED
    end, state = cut.attempt(1).read_end(), cut.read_state()
    assert end["kind"] == state.kind == "stopped" and state.status == "stopped" and "SIGTERM" in end["message"]
    assert max(int(path.name[5:]) for path in cut.checkpoints.glob("step-*")) == end["detail"]["step"]
    assert template.run(cut) == EXIT_DONE
    assert same(weights(whole), weights(cut)) and curve(whole) == curve(cut)
    assert cut.read_result().metrics == whole.read_result().metrics
    assert cut.read_result().attempts == 2


def test_the_user_signals_of_a_batch_system_mean_its_time_limit(template, make_run):
    run = make_run(parameters=PLAN | {"steps": 4000}, model={"pause": 0.01})
    pid = template.start(run)
    wait_for(lambda: list(run.checkpoints.glob("step-*")))
    os.kill(pid, signal.SIGUSR1)
    assert template.wait(pid) == EXIT_STOPPED
    assert run.attempt(1).read_end()["kind"] == "time-limit"


def test_a_deadline_stops_cleanly(template, make_run):
    run = make_run(parameters=PLAN | {"steps": 4000}, model={"pause": 0.01}, deadline=time.time() + 1.5)
    assert template.run(run) == EXIT_STOPPED
    end = run.attempt(1).read_end()
    assert end["kind"] == "stopped" and "deadline" in end["message"]


@pytest.mark.parametrize(
    ("model", "parameters", "kind", "says"),
    [
        ({"poison": 3}, {}, "not-finite", "not finite by themselves: 3"),
        ({"poison": -2}, {}, "data", "row 7"),
        ({}, {"optimizer": {"groups": [{"pattern": "nowhere.*"}]}}, "config", "nowhere"),
        ({}, {"steps": -1}, "config", "steps"),
        ({"width": "wide"}, {}, "config", "model.width"),
        ({"kind": "characters", "width": 0}, {}, "crash", "Error"),
    ],
)
def test_failures_become_records_of_their_kind(template, make_run, model, parameters, kind, says):
    run = make_run(parameters=PLAN | parameters, model=model)
    assert template.run(run) == EXIT_FAILED
    end, state, log = run.attempt(1).read_end(), run.read_state(), run.attempt(1).log.read_text()
    assert end["kind"] == state.kind == kind and state.status == "failed"
    assert says in end["message"] and "\n" not in end["message"]
    assert ("Traceback" in log) == (kind == "crash")
    assert not run.done and not run.claim_path.exists()


def test_memory_that_runs_out_is_told_and_half_of_it_is_enough(template, make_run):
    """Every sample takes 400 MB: eight do not fit into the address space, four do, with the same result."""
    hog, plan = 400_000_000, PLAN | {"steps": 4}
    limit = 2_400_000_000 + address_space_of_an_idle_worker(template, make_run)
    free = make_run("train-free", parameters=plan, model={"dropout": 0.0})
    run = make_run(
        "train-full", parameters=plan, model={"hog": hog, "dropout": 0.0}, resources={"address_space": limit}
    )
    assert template.run(free) == EXIT_DONE
    assert template.run(run) == EXIT_FAILED
    end = run.attempt(1).read_end()
    assert end["kind"] == run.read_state().kind == "out-of-memory" and end["detail"] == {"micro_batch": 8}
    half = Resources(address_space=limit, micro_batch=4)
    run.write_order(run.read_order().model_copy(update={"resources": half, "attempt": 2}))
    assert template.run(run) == EXIT_DONE
    assert run.read_result().facts["micro_batch"] == 4
    assert run.read_result().metrics["val/loss"] == pytest.approx(free.read_result().metrics["val/loss"], rel=1e-5)


def address_space_of_an_idle_worker(template, make_run):
    run = make_run("train-idle", parameters={"steps": 4000}, model={"pause": 0.01})
    pid = template.start(run)
    wait_for(lambda: run.read_state() is not None and run.read_state().step > 2)
    status = Path(f"/proc/{pid}/status").read_text()
    size = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmPeak"))
    os.kill(pid, signal.SIGTERM)
    template.wait(pid)
    return size


def test_numerics_are_kept_on_resume_and_a_change_is_told(template, make_run):
    run = make_run(parameters=PLAN | {"steps": 4000}, model={"pause": 0.01})
    pid = template.start(run)
    wait_for(lambda: list(run.checkpoints.glob("step-*")))
    os.kill(pid, signal.SIGTERM)
    template.wait(pid)
    kept = Numerics(precision="bf16", threads=1)
    run.write_order(run.read_order().model_copy(update={"numerics": kept, "deadline": 1.0, "attempt": 2}))
    assert template.run(run) == EXIT_STOPPED
    assert read_json(run.attempt(2).path / "numerics.json")["precision"] == "bf16"
    told = [event["text"] for event in read_attempt_events(run.attempt(2).events) if event.get("e") == "message"]
    assert any("numerics differ" in text and "precision" in text for text in told)


def test_a_stage_may_write_artifacts_that_get_checksums(template, make_run):
    run = make_run("prepare-aa", kind="prepare")
    assert template.run(run) == EXIT_DONE
    artifacts = run.read_result().artifacts
    assert artifacts["data"].bytes == 4 and artifacts["data"].sha256.startswith("3a6eb0790f39ac87")
    assert artifacts["shards"].bytes == 10


@pytest.mark.parametrize("which", ["last", "best"])
def test_evaluation_reads_the_checkpoint_it_was_told_to(template, make_run, which):
    trained = make_run("train-aa", parameters=PLAN)
    assert template.run(trained) == EXIT_DONE
    given = Input(
        reference=f"train@{which}", stage="train", kind="train", key="aa", path=str(trained.path), checkpoint=which
    )
    run = make_run("evaluate-bb", kind="evaluate", inputs=(given,), resources={"evaluation_batch": 3})
    assert template.run(run) == EXIT_DONE
    result = trained.read_result()
    wanted = result.metrics["val/loss"] if which == "last" else result.best["val/loss"].value
    assert run.read_result().metrics["val/loss"] == pytest.approx(wanted, rel=1e-5)


def test_an_evaluation_without_weights_says_what_it_needs(template, make_run):
    run = make_run("evaluate-bb", kind="evaluate")
    assert template.run(run) == EXIT_FAILED
    assert "needs one input with checkpoints" in run.attempt(1).read_end()["message"]


@pytest.mark.parametrize("mode", ["probe", "rehearse"])
def test_probes_tell_what_only_running_can(template, make_run, mode):
    groups = [{"pattern": "inner.*", "frozen": True}]
    run = make_run(mode=mode, parameters=PLAN | {"optimizer": {"groups": groups}, "schedule": {"warmup": 1000}})
    assert template.run(run) == EXIT_DONE
    facts = run.read_result().facts
    assert facts["parameters.groups"]["inner.*"] == {"total": 80, "trained": 0, "frozen": 80}
    assert facts["moved.parts"]["head"]["trained"] == 1.0 and facts["moved.parts"]["inner"]["frozen"] == 0.0
    assert facts["moved.still"] == [] and facts["moved.frozen"] == []
    assert facts["step.seconds"] > 0 and facts["memory.rss"] > 0 and facts["logits.scale"] == 1.0
    assert ("checkpoint.bytes" in facts) == ("val/loss" in run.read_result().metrics) == (mode == "rehearse")
    assert not list(run.checkpoints.glob("step-*"))


def test_an_order_that_is_none_is_one_line(tmp_path):
    bad = tmp_path / "order.json"
    bad.write_text("{")
    for path in (bad, tmp_path / "none.json"):
        done = subprocess.run([sys.executable, "-m", "ablab.worker", str(path)], capture_output=True, text=True)
        assert done.returncode == EXIT_FAILED and str(path) in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_tracker_stops_a_run_before_it_begins(template, make_run):
    run = make_run(track=("tensorbored",))
    assert template.run(run) == EXIT_FAILED
    assert "tensorboard" in run.read_state().message and run.read_state().kind == "config"


def test_tensorboard_mirrors_what_was_logged(template, make_run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(parameters=PLAN, track=("tensorboard",))
    assert template.run(run) == EXIT_DONE
    mirror = EventAccumulator(str(run.attempt(1).path / "tensorboard")).Reload()
    lines = [event for event in curve(run) if event["e"] == "step"]
    assert [(s.step, s.value) for s in mirror.Scalars("train/loss")] == [
        (line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in lines
    ]
    assert mirror.Scalars("val/loss")[-1].value == pytest.approx(run.read_result().metrics["val/loss"], rel=1e-6)


def test_the_record_is_json_that_others_read(template, make_run):
    run = make_run(parameters=PLAN)
    assert template.run(run) == EXIT_DONE
    assert json.loads(run.result_path.read_text())["format"] == 1


def test_a_worker_whose_run_was_taken_over_publishes_nothing(template, make_run):
    run = make_run(parameters=PLAN | {"steps": 4000, "checkpoints": {"every": 5}}, model={"pause": 0.01})
    pid = template.start(run)
    wait_for(lambda: list(run.checkpoints.glob("step-*")))
    run.claim_path.unlink()
    with acquire(run.claim_path):
        assert template.wait(pid) == EXIT_FAILED
        seen = run.read_state()
        assert run.claim_path.exists()
    assert run.attempt(1).read_end()["kind"] == "lost" and not run.done
    assert seen.status == "running" and seen.kind is None


def test_the_last_word_on_a_run_is_not_overwritten(template, make_run):
    """The thread that writes the state every second must be gone before the final state is written."""
    runs = [make_run(f"train-{n}", parameters={"steps": 60}, model={"pause": 0.016}) for n in range(4)]
    for pid in [template.start(run) for run in runs]:
        assert template.wait(pid) == EXIT_DONE
    assert [run.read_state().status for run in runs] == ["done"] * 4
