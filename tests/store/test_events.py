"""Events: written in order, read whole, merged over attempts."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ablab.store import events as module
from ablab.store.events import EventWriter, read_attempt_events, read_events, tail_events
from ablab.store.files import CorruptFile
from ablab.store.layout import RunFolder


def steps(found: list[module.Event]) -> list[int]:
    return [event["step"] for event in found if event["e"] == "step"]


def write(run: RunFolder, attempt: int, start: int, last: int) -> None:
    """An attempt that starts from a step, logs every step, validates and checkpoints every fifth."""
    with EventWriter(run.attempt(attempt).create().events) as writer:
        writer.log("start", step=start, pid=1, host="h")
        for step in range(start + 1, last + 1):
            writer.log("step", step=step, loss=attempt + step / 100)
            if step % 5 == 0:
                writer.log("validation", step=step, values={"val/loss": float(attempt)})
                writer.log("checkpoint", step=step, path=f"step-{step}")
        writer.log("message", text=f"end of attempt {attempt}", level="info")


def test_events_read_back_as_logged_also_when_not_finite(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "events.jsonl") as writer:
        writer.log("step", step=1, loss=math.nan, lr=3e-4, grad_norm=math.inf, low=-math.inf)
        writer.log("message", text="two\nlines ü \u2028 \ud800")
    first, second = read_attempt_events(tmp_path / "events.jsonl")
    assert math.isnan(first["loss"]) and first["grad_norm"] == math.inf and first["low"] == -math.inf
    assert first["lr"] == 3e-4 and second["text"] == "two\nlines ü \u2028 \ud800"
    assert 0 <= second["t"] - first["t"] < 60


def test_secrets_in_messages_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "abc123def")
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as writer:
        writer.log("message", text="401 for abc123def", level="error")
        writer.log("end", kind="crash", message="token=abc123def")
    assert b"abc123def" not in path.read_bytes() and len(read_attempt_events(path)) == 2


def test_step_events_wait_for_size_age_or_an_event_that_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "_clock", lambda: now)
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.log("step", step=1)
    assert read_attempt_events(path) == []
    now += 0.4
    writer.log("step", step=2)
    assert read_attempt_events(path) == []
    now += 0.1
    writer.log("step", step=3)
    assert steps(read_attempt_events(path)) == [1, 2, 3]
    writer.log("step", step=4)
    writer.log("validation", step=4, values={})
    assert len(read_attempt_events(path)) == 5
    for step in range(5, 5 + 64):
        writer.log("step", step=step)
    assert steps(read_attempt_events(path))[-1] == 68
    writer.log("step", step=69)
    writer.flush(sync=True)
    assert steps(read_attempt_events(path))[-1] == 69
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.log("message", text="too late")


def test_readers_beside_the_writer_see_whole_lines_in_order(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    stop = threading.Event()

    def work() -> None:
        for step in range(1, 5001):
            writer.log("step", step=step, loss=1 / step)
            if stop.wait(0.0001):
                return

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(30):
        found = read_attempt_events(path)
        assert steps(found) == list(range(1, len(found) + 1))
        tail = tail_events(path, 3)
        assert steps(tail) == list(range(tail[0]["step"], tail[0]["step"] + 3)) if len(tail) == 3 else True
    stop.set()
    thread.join()
    writer.close()


def test_several_threads_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as writer:
        threads = [
            threading.Thread(target=lambda k=k: [writer.log("step", step=i, thread=k) for i in range(2000)])
            for k in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = read_attempt_events(path)
    for k in range(3):
        assert [e["step"] for e in found if e["thread"] == k] == list(range(2000))


def test_a_forked_child_does_not_write_its_parents_events_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.log("step", step=1)
    pid = os.fork()
    if pid == 0:
        writer.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    writer.close()
    assert steps(read_attempt_events(path)) == [1]


def test_later_events_of_superseded_attempts_are_left_out(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "train-01")
    write(run, 1, 0, 13)
    write(run, 2, 10, 17)
    write(run, 3, 5, 8)
    found = read_events(run)
    assert steps(found) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [e["attempt"] for e in found if e["e"] == "step"] == [1] * 5 + [3] * 3
    assert [(e["step"], e["attempt"]) for e in found if e["e"] == "checkpoint"] == [(5, 1)]
    assert [e["text"] for e in found if e["e"] == "message"] == [f"end of attempt {n}" for n in (1, 2, 3)]


def test_merged_events_equal_those_of_an_undisturbed_run_at_any_kill(tmp_path: Path) -> None:
    whole = RunFolder(tmp_path / "whole-01")
    write(whole, 1, 0, 30)
    rng = random.Random(3)
    for case in range(20):
        run = RunFolder(tmp_path / f"killed-{case:02}")
        start = attempt = 0
        while start < 30 and attempt < 6:
            attempt += 1
            last = 30 if attempt == 6 else rng.randint(start, 30)
            write(run, attempt, start, last)
            start = last // 5 * 5
        keys = [(e["e"], e["step"]) for e in read_events(run) if e["e"] in {"step", "validation", "checkpoint"}]
        assert keys == [
            (e["e"], e["step"]) for e in read_events(whole) if e["e"] in {"step", "validation", "checkpoint"}
        ]


def test_what_a_resumed_attempt_logs_again_at_its_first_step_counts_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "train-01")
    write(run, 1, 0, 5)
    with EventWriter(run.attempt(2).create().events) as writer:
        writer.log("start", step=5)
        writer.log("validation", step=5, values={"val/loss": 9.0})
    assert [e["values"] for e in read_events(run) if e["e"] == "validation"] == [{"val/loss": 9.0}]


def test_an_attempt_that_never_started_supersedes_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "train-01")
    write(run, 1, 0, 4)
    run.attempt(2).create()
    assert steps(read_events(run)) == [1, 2, 3, 4]
    assert read_events(RunFolder(tmp_path / "nothing-02")) == []


def test_a_torn_end_is_ignored_and_mended_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as writer:
        writer.log("step", step=1)
        writer.log("step", step=2)
    os.truncate(path, path.stat().st_size - 4)
    assert steps(read_attempt_events(path)) == steps(tail_events(path, 5)) == [1]
    with EventWriter(path) as writer:
        writer.log("step", step=3)
    assert steps(read_attempt_events(path)) == [1, 3]


def test_a_corrupt_line_is_named_or_skipped_with_a_word(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "train-01")
    write(run, 1, 0, 4)
    path = run.attempt(1).events
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"\x00\x00garbage\n", *lines[3:]]))
    with pytest.raises(CorruptFile, match=r"events\.jsonl, line 4"):
        read_events(run)
    problems: list[str] = []
    assert steps(read_events(run, problems=problems)) == [1, 2, 3, 4]
    assert len(problems) == 1 and steps(tail_events(path, 9)) == [1, 2, 3, 4]


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 1000])
@pytest.mark.parametrize("width", [1, 5000])
def test_the_tail_equals_the_end_of_the_whole(tmp_path: Path, lines: int, width: int) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as writer:
        for step in range(lines):
            writer.log("step", step=step, pad="x" * (width * (step % 3)))
    whole = read_attempt_events(path)
    for n in (0, 1, 2, 7, 2000):
        assert tail_events(path, n) == whole[max(0, len(whole) - n) :]
    assert tail_events(tmp_path / "none.jsonl", 3) == []


def test_the_tail_reads_only_the_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as writer:
        for step in range(20_000):
            writer.log("step", step=step)
    with path.open("r+b") as file:
        file.seek(50)
        file.write(b"\xff\n\xff" * 100)
    assert steps(tail_events(path, 2)) == [19_998, 19_999]


WRITER = """
import sys
from ablab.store.events import EventWriter
writer = EventWriter(sys.argv[1])
step = int(sys.argv[2])
print("ready", flush=True)
while True:
    step += 1
    writer.log("step", step=step, loss=1 / step, lr=3e-4, grad_norm=step * 0.1, tokens=step * 4096, pad="x" * 500)
    if step % 10 == 0:
        writer.log("validation", step=step, values={"val/loss": 1 / step})
        print(step, flush=True)
"""


def test_a_killed_writer_leaves_whole_events_and_all_that_it_told_of(tmp_path: Path) -> None:
    random.seed(11)
    path = tmp_path / "events.jsonl"
    done = 0
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(done)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        told = [int(writer.stdout.readline()) for _ in range(random.randint(1, 9))]
        time.sleep(random.uniform(0, 0.002))
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.communicate()[0].splitlines()]
        found = steps(read_attempt_events(path))
        assert found == list(range(1, len(found) + 1)) and len(found) >= max(done, *told)
        done = len(found)
    assert done > 100
