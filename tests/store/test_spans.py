"""Which runs shared a machine, against all pairs, and from files as workers leave them."""

from __future__ import annotations

import random
from pathlib import Path

from ablab.store.events import EventWriter
from ablab.store.layout import RunFolder
from ablab.store.spans import Span, overlapping, read_spans


def test_overlaps_agree_with_all_pairs() -> None:
    draw = random.Random(2)
    runs = {}
    for index in range(60):
        start, host = draw.uniform(0, 500), draw.choice("ab")
        runs[str(index)] = [
            Span(start=start + k * 40, end=start + k * 40 + draw.uniform(1, 60), host=host) for k in range(2)
        ]
    expected = {}
    for key, own in runs.items():
        least = 0.01 * sum(span.end - span.start for span in own)
        shared = {
            other: sum(a.overlap(b) for a in own for b in theirs) for other, theirs in runs.items() if other != key
        }
        if telling := {other for other, seconds in shared.items() if seconds > 0 and seconds >= least}:
            expected[key] = telling
    assert expected
    assert {key: set(value) for key, value in overlapping(runs).items()} == expected


def test_a_moment_of_overlap_is_not_sharing() -> None:
    runs = {"long": [Span(start=0, end=1000)], "next": [Span(start=999, end=2000)]}
    assert overlapping(runs) == {}
    assert overlapping(runs | {"next": [Span(start=900, end=2000)]}) == {"long": ("next",), "next": ("long",)}


def test_spans_are_read_from_the_first_and_last_event_of_each_attempt(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "train-abc")
    for number in (1, 2):
        with EventWriter(run.attempt(number).create().events) as writer:
            writer.log("start", step=0, host="gpu1")
            for step in range(200):
                writer.log("step", step=step, loss=1.0)
    run.attempt(3).create()
    path = run.attempt(2).events
    path.write_text(path.read_text() + '{"e": "st')
    spans = list(read_spans(run))
    assert [(span.attempt, span.host) for span in spans] == [(1, "gpu1"), (2, "gpu1")]
    assert all(span.end > span.start for span in spans)
    assert spans[0].end <= spans[1].start
