"""Time that adds up, and timings that may not be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ablab.analysis.timing import account, epochs, mark_shared, speed_ratios, speeds
from ablab.store.spans import Span


def test_named_seconds_sum_to_the_wall_clock(record: Callable) -> None:
    time = {"validation": 40.0, "forward-backward": 50.0, "start-up": 8.0, "other": 2.0}
    found = account(record("a", time=time, spans=(Span(start=8, end=60), Span(start=100, end=140))))
    assert found is not None
    assert list(found.seconds) == ["start-up", "forward-backward", "validation", "other"]
    assert found.wall == found.named == 100 and found.complete
    assert found.shares["validation"] == pytest.approx(0.4)
    assert sum(found.shares.values()) == pytest.approx(1.0)


def test_an_account_that_leaves_time_out_is_not_complete(record: Callable) -> None:
    # 49 % of the log's wall clock lay outside its timed steps.
    found = account(record("a", time={"forward-backward": 8300.0}, spans=(Span(start=0, end=16287),)))
    assert found is not None and not found.complete
    assert found.unnamed == pytest.approx(7987)
    assert account(record("b")) is None


def test_runs_side_by_side_are_marked_and_runs_alone_are_not(record: Callable) -> None:
    runs = {
        "one": record("one", spans=(Span(start=0, end=100, host="gpu1"),)),
        "two": record("two", spans=(Span(start=10, end=110, host="gpu1"),)),
        "three": record("three", spans=(Span(start=110, end=200, host="gpu1"),)),
        "elsewhere": record("elsewhere", spans=(Span(start=0, end=200, host="gpu2"),)),
    }
    marked = mark_shared(runs)
    assert [key for key, run in marked.items() if run.shared] == ["one", "two"]


def test_a_speed_between_shared_and_alone_is_contention(make: Callable, record: Callable) -> None:
    _, results = make({"GPT-01": [4.27], "GPT-02": [4.69], "GPT-03": [4.97]})
    runs = {
        "GPT-01": record("GPT-01", step_times={"median": 0.0837}, spans=(Span(start=0, end=16287),)),
        "GPT-02": record("GPT-02", step_times={"median": 0.0835}, spans=(Span(start=0, end=16366),)),
        "GPT-03": record("GPT-03", step_times={"median": 0.0769}, spans=(Span(start=20000, end=35318),)),
    }
    arms = tuple(replace(arm, runs={"train": arm.experiment}) for arm in results.arms)
    results = replace(results, arms=arms, runs=mark_shared(runs))
    assert [(row.experiment, row.shared) for row in speeds(results)] == [
        ("GPT-01", True), ("GPT-02", True), ("GPT-03", False),
    ]  # fmt: skip
    ratio = speed_ratios(results, "GPT-01", ("GPT-03",))[0]
    assert ratio.ratio == pytest.approx(0.0769 / 0.0837)
    assert not ratio.comparable and "contention" in ratio.reason
    alone = {key: replace(run, shared=False, spans=()) for key, run in runs.items()}
    assert speed_ratios(replace(results, runs=alone), "GPT-01", ("GPT-03",))[0].comparable


def test_an_epoch_without_loading_and_warm_up_and_with(make: Callable, record: Callable) -> None:
    _, results = make({"OVEN": [0.6], "OKVQA": [0.3], "SHORT": [0.2]})
    time = {"start-up": 30.0, "data": 60.0, "forward-backward": 1000.0, "optimizer": 40.0, "validation": 20.0}
    facts = {"samples.train": 339_137, "steps.done": 10_600, "samples.seen": 678_400}
    runs = {
        # Two epochs of 5,300 steps, 0.0908 s each without loading.
        "OVEN": record(
            "OVEN",
            time=time,
            facts=facts,
            step_times={"mean": 0.1, "waited": 0.0092, "excluded": 100.0},
            peak={"rss": 3 << 30, "gpu": 0},
            spans=(Span(start=0, end=1120),),
        ),
        "OKVQA": record("OKVQA", facts={**facts, "samples.train": 8253, "samples.seen": 8256, "steps.done": 129}),
        "SHORT": record("SHORT", facts={**facts, "samples.seen": 150_000, "steps.done": 2344}),
    }
    arms = tuple(replace(arm, runs={"train": arm.experiment}) for arm in results.arms)
    oven, okvqa = epochs(replace(results, arms=arms, runs=runs))
    assert (oven.experiment, oven.samples, oven.steps) == ("OVEN", 339_137, 5300)
    assert oven.net == pytest.approx(5300 * 0.0908) and oven.gross == pytest.approx(550.0)
    assert oven.whole == pytest.approx(1150) and oven.epochs == pytest.approx(2.0, abs=1e-3)
    assert oven.per_second == pytest.approx(64 / 0.0908)
    assert (oven.excluded, oven.rss, oven.gpu, oven.ended) == (100, 3 << 30, None, "0")
    assert (okvqa.steps, okvqa.net, okvqa.gross) == (129, None, None)
    # A run that several arms share is told once, of the first.
    shared = tuple(replace(arm, runs={"train": "OVEN"}) for arm in arms)
    assert [row.experiment for row in epochs(replace(results, arms=shared, runs=runs))] == ["OVEN"]
    # A run that failed stands beside them with the kind of its end; alone it makes no table of epochs.
    runs["SHORT"] = record("SHORT", status="failed", failure="out-of-memory", step=7, steps_total=5300)
    *_, failed = epochs(replace(results, arms=arms, runs=runs))
    assert (failed.experiment, failed.samples, failed.steps, failed.net) == ("SHORT", None, 5300, None)
    assert failed.ended == "out-of-memory"
    assert not epochs(replace(results, arms=arms, runs={"SHORT": runs["SHORT"]}))
