"""A log tells what a run reported in the order it happened, and every experiment has one beside the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablab.lab import Lab
from ablab.report import logs
from ablab.store.events import EventWriter
from ablab.store.layout import RunFolder, Store
from tests.report.filled import fill, frozen_launch, smoke


def attempt(run: RunFolder, number: int, *, steps: int, start: int = 0, printed: str = "") -> None:
    folder = run.attempt(number).create()
    with EventWriter(folder.events) as writer:
        writer.log("start", step=start, steps=steps, host="h", pid=1, micro_batch=4)
        for step in range(start + 1, steps + 1):
            writer.log("step", step=step, loss=1 / step, lr=0.1, tokens=3.0 * step, grad_norm=2.0)
        writer.log("validation", step=steps, values={"val/loss": 0.25}, seconds=2.0)
        writer.log("checkpoint", step=steps, path="p", bytes=2048, seconds=0.1, tags=["last", "best"])
        writer.log("resource", rss=1, gpu_memory=0)
        writer.log("end", kind="killed", message="a signal")
    folder.log.write_text(printed, encoding="utf-8")


def test_a_run_tells_what_it_reported_and_then_what_it_printed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "train-1").create()
    attempt(run, 1, steps=2, printed="a warning\n")
    attempt(run, 2, steps=3, start=2)
    first = [line[21:] if line[:2] == "20" else line for line in logs.run_log(run, attempt=1)]
    assert first == [
        "attempt 1 starts on h: 2 steps, micro-batch 4",
        "step 1 of 2: loss 1, lr 0.1, grad_norm 2",
        "step 2 of 2: loss 0.5, lr 0.1, grad_norm 2",
        "validation at step 2: val/loss 0.25 (2.0 s)",
        "checkpoint at step 2 (last, best), 2.0 KiB",
        "ends: killed, a signal",
        "a warning",
    ]
    assert "attempt 2 starts at step 2 on h" in logs.run_log(run)[len(first)]


def test_of_many_steps_some_are_told_and_the_last(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "train-1").create()
    attempt(run, 1, steps=1001)
    told = [line for line in logs.run_log(run) if "  step " in line]
    assert logs.STEPS / 2 < len(told) <= logs.STEPS + 1
    assert "step 1 of" in told[0] and "step 1001 of" in told[-1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    store, study = Store(tmp_path_factory.mktemp("store")), smoke()
    frozen_launch(store, study, Lab(study, store).plan())
    fill(store, study)
    return Lab(study, store)


def test_every_experiment_has_a_log_beside_the_report(lab: Lab) -> None:
    folder = lab.report().parent / "logs"
    begun = {name for name, arm in lab.study.experiments.items() if not arm.planned}
    assert {path.stem for path in folder.iterdir()} == begun, "planned arms share the prepared data and have not begun"
    text = (folder / "trained.log").read_text(encoding="utf-8")
    records = lab.view().records("trained")
    assert text.startswith("trained") and all(record.name in text for record in records if record.attempts)
    kept = (folder / "trained.log").stat().st_mtime_ns
    lab.report()
    assert (folder / "trained.log").stat().st_mtime_ns == kept, "what has not changed is not written again"


def test_a_log_is_written_again_once_one_of_its_runs_has_more_to_tell(lab: Lab) -> None:
    path = lab.report().parent / "logs" / "trained.log"
    before = path.read_text(encoding="utf-8")
    record = next(record for record in lab.view().records("trained") if record.attempts)
    log = lab.store.run(record.name).attempt(1).log
    log.write_text("one more line\n", encoding="utf-8")
    lab.report()
    assert "one more line" in path.read_text(encoding="utf-8").splitlines()
    assert "one more line" not in before.splitlines()
