import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ablab
from ablab.contract.failure import EXIT_DONE


def wait_for(condition, timeout=60.0):
    limit = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def start(environment):
    command = [sys.executable, "-m", "ablab.worker.template", "json.tool"]
    made = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment)
    assert "ready" in json.loads(made.stdout.readline())
    return made


def say(template, run):
    template.stdin.write(f"{run.order_path}\n")
    template.stdin.flush()


def session_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])


def test_children_outlive_a_template_that_is_killed(make_run, environment):
    template = start(environment)
    run = make_run(parameters={"steps": 150, "checkpoints": {"every": 50}}, model={"pause": 0.01})
    say(template, run)
    started = json.loads(template.stdout.readline())
    assert started["order"] == str(run.order_path)
    wait_for(lambda: session_of(started["pid"]) == started["pid"])
    wait_for(lambda: run.read_state() is not None)
    os.kill(template.pid, signal.SIGKILL)
    template.wait(timeout=30)
    wait_for(lambda: run.attempt(1).read_end() is not None)
    assert run.attempt(1).read_end()["kind"] == "done" and run.done


def test_the_end_of_stdin_ends_the_template_and_not_its_children(make_run, environment):
    template = start(environment)
    runs = [make_run(f"train-{n}", parameters={"steps": 60}, model={"pause": 0.01}) for n in "ab"]
    for run in runs:
        say(template, run)
    template.stdin.close()
    template.wait(timeout=30)
    wait_for(lambda: all(run.done for run in runs))


def test_ends_are_reported_with_their_exit(template, make_run):
    run = make_run(parameters={"steps": 4000}, model={"pause": 0.01})
    pid = template.start(run)
    wait_for(lambda: run.read_state() is not None)
    os.kill(pid, signal.SIGKILL)
    assert template.wait(pid) == -signal.SIGKILL
    assert run.read_state().status == "running" and not run.done


def test_many_children_side_by_side_all_end(template, make_run):
    runs = [make_run(f"train-{n}", parameters={"steps": 5}) for n in range(6)]
    pids = [template.start(run) for run in runs]
    assert [template.wait(pid) for pid in pids] == [EXIT_DONE] * 6


def test_an_order_that_cannot_be_read_ends_alone(template, make_run, store):
    class Missing:
        order_path = store.root / "nowhere" / "order.json"

    assert template.run(Missing()) != EXIT_DONE
    assert template.run(make_run()) == EXIT_DONE


def test_what_a_stage_prints_stands_in_its_log(template, make_run):
    run = make_run(model={"poison": 3})
    template.run(run)
    assert "not-finite" in run.attempt(1).log.read_text()


def test_another_frozen_source_gets_a_process_of_its_own(template, make_run, tmp_path):
    """A template keeps the code it was started with; an order frozen later must run on its own."""
    frozen = tmp_path / "frozen"
    package = frozen / "ablab"
    original = Path(ablab.__file__).parent
    package.mkdir(parents=True)
    for entry in original.iterdir():
        if entry.name not in ("__init__.py", "worker", "__pycache__"):
            (package / entry.name).symlink_to(entry)
    (package / "__init__.py").write_text((original / "__init__.py").read_text())
    (package / "worker").mkdir()
    for entry in (original / "worker").iterdir():
        if entry.name not in ("records.py", "__pycache__"):
            (package / "worker" / entry.name).symlink_to(entry)
    marked = (original / "worker" / "records.py").read_text() + "\nprint('the frozen one')\n"
    (package / "worker" / "records.py").write_text(marked)
    run = make_run(source=str(frozen))
    assert template.run(run) == EXIT_DONE
    assert "the frozen one" in run.attempt(1).log.read_text()
