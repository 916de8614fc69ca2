"""Whole command stages through a real worker: done, stopped, resumed, failed; each with its record."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest

from ablab.contract.failure import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from ablab.contract.order import Input
from ablab.store.events import read_events
from ablab.store.processes import process_start

#: Counts to 30, a step at a time; goes on from the file it is given.
COUNTER = """
    import argparse, json, pathlib, signal, sys, time
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--resume", type=pathlib.Path)
    parser.add_argument("--pause", type=float, default=0.0)
    a = parser.parse_args()
    step, total = (json.loads(a.resume.read_text()) if a.resume else (0, 0.0))
    while step < 30:
        step, total = step + 1, total + 1 / (step + 1)
        print(f"step {step}: loss {1 / step:.6f} total {total:.6f}", flush=True)
        if step % 5 == 0:
            temporary = a.out / "last.tmp"
            temporary.write_text(json.dumps((step, total)))
            temporary.replace(a.out / "last.json")
        time.sleep(a.pause)
"""
METRICS = [{"line": "step {step}: loss {train/loss} total {val/total}"}]
COMMAND = f"{sys.executable} script.py --out {{output}} --pause {{pause}}"


def wait_for(condition, timeout=60.0):
    limit = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def counter(make_command, name, *, pause=0.0, **parameters):
    values = {"command": COMMAND, "parameters": {"pause": pause}, "metrics": METRICS, "steps": 30, **parameters}
    return make_command(name, COUNTER, **values)


def curve(run):
    return [(e["step"], e["values"]["val/total"]) for e in read_events(run) if e["e"] == "validation"]


def test_a_program_leaves_metrics_curves_outputs_and_its_log(template, make_command, study):
    run = counter(make_command, "command-aa", outputs=["last.json"], order={"wanted": ("val/total",)})
    assert template.run(run) == EXIT_DONE
    result, state = run.read_result(), run.read_state()
    total = sum(1 / step for step in range(1, 31))
    assert result.metrics == {
        "val/total": pytest.approx(total, abs=1e-6),
        "train/loss": pytest.approx(1 / 30, abs=1e-6),
    }
    assert result.best["val/total"].step == 1 and result.best["train/loss"].step == 30
    assert (state.status, state.step, state.steps, state.progress) == ("done", 30, 30, 1.0)
    assert [step for step, _ in curve(run)] == list(range(1, 31))
    assert json.loads((run.path / result.artifacts["last.json"].path).read_text())[0] == 30
    assert "step 30: loss" in run.attempt(1).log.read_text()
    assert 5 << 20 < result.peak["rss"] < 100 << 20, "the program's memory, not the worker's"
    assert not (run.path / "work").exists() and not (run.path / "command.json").exists()


def test_what_a_program_writes_beside_itself_stays_in_its_run(template, make_command, study):
    script = "open('note.txt', 'w').write('x'); open('model.bin', 'w').write('y'); print(open('data/d.txt').read())"
    (study / "data").mkdir()
    (study / "data" / "d.txt").write_text("value 3")
    run = make_command(
        "command-aa", script, data=["data/d.txt"], outputs=["model.bin"], metrics=[{"line": "value {val/x}"}]
    )
    assert template.run(run) == EXIT_DONE
    assert sorted(path.name for path in study.iterdir()) == ["data", "script.py"]
    assert (run.path / "work" / "note.txt").read_text() == "x" and (run.artifacts / "model.bin").read_text() == "y"
    assert [path.name for path in (run.path / "work").iterdir()] == ["note.txt"]
    assert run.read_result().metrics == {"val/x": 3.0}


@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_was_ended_goes_on_or_starts_at_zero(template, make_command, resumes, how):
    options = {"resume": {"file": "last.json"}} if resumes else {}
    run = counter(make_command, "command-aa", pause=0.03, outputs=["last.json"], **options)
    whole = counter(make_command, "command-bb", outputs=["last.json"])
    pid = template.start(run)
    wait_for(lambda: (run.artifacts / "last.json").exists())
    program = json.loads((run.path / "command.json").read_text())
    os.kill(pid, how)
    assert template.wait(pid) == (EXIT_STOPPED if how == signal.SIGTERM else -signal.SIGKILL)
    wait_for(lambda: process_start(program["pid"]) != program["start"])
    if how == signal.SIGTERM:
        end = run.attempt(1).read_end()
        assert end["kind"] == "stopped" and ("goes on" if resumes else "starts at zero") in end["message"]
    run.write_order(run.read_order().model_copy(update={"attempt": 2}))
    assert template.run(run) == template.run(whole) == EXIT_DONE
    assert run.read_result().metrics == pytest.approx(whole.read_result().metrics, abs=1e-9)
    assert curve(run) == curve(whole), "every step once"
    started = [e["step"] for e in read_events(run) if e["e"] == "start" and e["attempt"] == 2]
    assert (started[0] > 0 and started[0] % 5 == 0) if resumes else started == [0]
    assert ("--resume" in run.read_result().facts["command"]) == resumes


def test_a_damaged_file_costs_one_attempt_not_the_run(template, make_command):
    run = counter(make_command, "command-aa", resume={"file": "last.json"})
    run.artifacts.mkdir(parents=True)
    (run.artifacts / "last.json").write_text("[3, ")
    assert template.run(run) == EXIT_FAILED and run.attempt(1).read_end()["kind"] == "crash"
    run.write_order(run.read_order().model_copy(update={"attempt": 2}))
    assert template.run(run) == EXIT_DONE and run.read_result().facts["command.resumed"] is False


@pytest.mark.parametrize(
    ("script", "parameters", "wanted", "kind", "says"),
    [
        ("print('a'); raise ValueError('too wide')", {}, (), "crash", "ValueError: too wide"),
        ("import os; os.abort()", {}, (), "crash", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", {}, (), "killed", "SIGKILL"),
        ("print('x nan')", {"metrics": [{"line": "x {val/x}"}]}, ("val/x",), "not-finite", "val/x is nan"),
        ("print('los 3')", {"metrics": [{"line": "los {val/los}"}]}, ("val/loss",), "data", "it told: val/los"),
        ("pass", {"outputs": ["m.bin", "n.bin"]}, (), "data", "m.bin, n.bin"),
        ("x = [0] * 10 ** 15", {}, (), "out-of-memory", "MemoryError"),
        ("raise SystemExit(77)", {"out_of_memory": {"exit_code": 77}}, (), "out-of-memory", "77"),
        ("raise OSError(28, 'No space left on device')", {}, (), "disk-full", "disk full"),
        ("", {"command": ["no-such-program"]}, (), "config", "no-such-program"),
        ("pass", {"command": "cat {nothing}"}, (), "config", "{nothing}"),
    ],
)  # fmt: skip
def test_failures_have_their_kind(template, make_command, script, parameters, wanted, kind, says):
    run = make_command("command-aa", script, order={"wanted": wanted}, **parameters)
    assert template.run(run) == EXIT_FAILED
    end = run.attempt(1).read_end()
    assert end["kind"] == kind and says in end["message"] and not run.done
    assert "Traceback" not in end["message"]


def test_placeholders_reach_the_program(template, make_command, make_run, study):
    script = """
        import ablab, os, sys
        assert sys.argv[1:4] == ["a b", "x{y}", "7"] and sys.argv[4:] == ["--yes"], sys.argv
        assert os.environ["WHERE"].endswith("artifacts") and os.environ["CUDA_VISIBLE_DEVICES"] == ""
        ablab.log(1, val_loss=0.5)
        ablab.log(2, {"val/loss": 0.25, "acc": 1})
    """
    made = make_command("command-zz", "open('x.txt', 'w').write('5')", outputs=["x.txt"])
    assert template.run(made) == EXIT_DONE
    given = Input(reference="first", stage="first", kind="command", key="zz", path=str(made.path))
    run = make_command(
        "command-aa",
        script,
        command=[sys.executable, "script.py", "{text}", "x{{y}}", "{seed}", "{on?--yes}", "{off?--no}"],
        parameters={"text": "a b", "on": True, "off": False},
        env={"WHERE": "{input.first}"},
        order={"seed": 7, "inputs": (given,), "wanted": ("val/loss", "acc")},
    )
    assert template.run(run) == EXIT_DONE, run.attempt(1).log.read_text()
    assert run.read_result().metrics == {"val/loss": 0.25, "acc": 1.0}
    assert run.read_result().best["val/loss"].value == 0.25 and run.read_result().best["acc"].value == 1.0


def test_a_shell_runs_only_where_it_is_asked_for(template, make_command):
    line = "echo value 1; echo {text} | tr a-z A-Z"
    shell = make_command("command-aa", command=line, shell=True, parameters={"text": "it's $HOME"},
                         metrics=[{"line": "value {val/x}"}])  # fmt: skip
    plain = make_command("command-bb", command=line, parameters={"text": "x"})
    assert template.run(shell) == template.run(plain) == EXIT_DONE
    assert "IT'S $HOME" in shell.attempt(1).log.read_text()
    assert "value 1; echo x | tr a-z A-Z" in plain.attempt(1).log.read_text()


def test_secrets_that_a_program_prints_are_not_kept(template, make_command, monkeypatch, study):
    secret = "Kq7vX2mP9sLw4RtY"
    (study / ".env").write_text(f"MY_SERVICE={secret}\nHF_TOKEN=hf_{secret * 2}\n")
    script = """
        import os, sys
        print("it is", os.environ["MY_SERVICE"])
        print(os.environ["HF_TOKEN"], file=sys.stderr)
        raise SystemExit(3)
    """
    run = make_command("command-aa", script)
    assert template.run(run) == EXIT_FAILED
    assert "it is [redacted]" in run.attempt(1).log.read_text()
    for path in run.path.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path
