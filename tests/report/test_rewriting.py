"""Rewriting in the background: seldom, one at a time, never ending what is running."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from ablab.report.rewriting import PAUSE, Rewriter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_writing_waits_its_turn() -> None:
    clock, written = Clock(), []
    rewriter = Rewriter(lambda: written.append(clock.now), every=15, clock=clock)
    assert not rewriter.tick(), "not at once"
    clock.now += 15
    assert rewriter.tick()
    rewriter.close()
    assert written == [115.0]
    clock.now += 14
    assert not rewriter.tick()
    clock.now += 1
    assert rewriter.tick()
    rewriter.close()
    assert written == [115.0, 130.0]


def test_a_long_writing_pauses_long() -> None:
    clock = Clock()

    def slow() -> None:
        clock.now += 10

    rewriter = Rewriter(slow, every=15, clock=clock)
    clock.now += 15
    assert rewriter.tick()
    rewriter.close()
    clock.now += PAUSE * 10 - 1
    assert not rewriter.tick()
    clock.now += 1
    assert rewriter.tick()
    rewriter.close()


def test_only_one_writes_at_a_time_and_tick_returns_at_once() -> None:
    clock, going, proceed = Clock(), threading.Event(), threading.Event()

    def write() -> None:
        going.set()
        assert proceed.wait(10)

    rewriter = Rewriter(write, every=1, clock=clock)
    clock.now += 2
    assert rewriter.tick() and going.wait(10)
    clock.now += 100
    assert not rewriter.tick()
    proceed.set()
    rewriter.close()


def test_what_cannot_be_written_ends_nothing() -> None:
    clock = Clock()

    def fail() -> None:
        raise OSError("the disk is full")

    rewriter = Rewriter(fail, every=1, clock=clock)
    clock.now += 2
    assert rewriter.tick()
    rewriter.close()
    assert isinstance(rewriter.error, OSError)


def test_without_an_interval_nothing_is_written() -> None:
    clock, written = Clock(), []
    rewriter = Rewriter(lambda: written.append(1), every=None, clock=clock)
    clock.now += 1e9
    assert not rewriter.tick()
    rewriter.behind(SimpleNamespace(kind="ended"))
    assert not written


def test_a_launch_behind_is_told_to_its_end_and_listeners_hear_all() -> None:
    clock, written, heard = Clock(), [], []
    rewriter = Rewriter(lambda: written.append(clock.now), every=15, clock=clock)
    listen = rewriter.beside(lambda notice: heard.append(notice.kind))
    listen(SimpleNamespace(kind="tick"))
    rewriter.behind(SimpleNamespace(kind="tick"))
    assert heard == ["tick"] and not written
    rewriter.behind(SimpleNamespace(kind="ended"))
    assert written == [100.0], "the last report is written whatever the time"
