"""Scales and layouts of figures: nothing falls outside, nothing is lost, nothing divides by zero."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ablab.report.document import Answer, Bars, Chart, Histogram, Line
from ablab.report.drawing import ARMS, BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, bins, forest, lines, stacks
from ablab.report.scales import Scale, covering

FINITE = st.floats(-1e9, 1e9, allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE, min_size=1, max_size=20), st.booleans())
def test_a_scale_covers_its_values_and_keeps_their_order(values: list[float], log: bool) -> None:
    scale = covering(values, log=log)
    shares = [scale.share(value) for value in sorted(values)]
    assert all(0 <= share <= 1 for share in shares) and shares == sorted(shares)
    assert scale.low <= min(values) and max(values) <= scale.high
    assert all(scale.holds(tick) or math.isclose(tick, scale.low) or math.isclose(tick, scale.high, rel_tol=1e-6)
               for tick in scale.ticks())  # fmt: skip
    assert len(scale.ticks(6)) <= 10


def test_ticks_are_round() -> None:
    assert Scale(low=0, high=1).ticks(5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert Scale(low=0.93, high=1.32).ticks(5) == [1.0, 1.1, 1.2, 1.3]
    assert Scale(low=1, high=1000, log=True).ticks(4) == [1, 10, 100, 1000]
    assert Scale(low=20, high=300, log=True).ticks(6) == [20, 50, 100, 200]


def answer(arm: str, *values: float, low: float | None = None, high: float | None = None) -> Answer:
    mean = sum(values) / len(values)
    return Answer(arm=arm, word="met", tone="good", sentence="", values=values, low=low, point=mean, high=high)


def test_one_wide_interval_does_not_flatten_the_others() -> None:
    drawn = forest(
        [answer("wide", 1.0, 1.1, low=0.001, high=900.0), answer("sharp", 1.01, 1.02, low=1.0, high=1.03)],
        margin=1.05,
        neutral=1.0,
        holds="below",
        log=True,
    )
    wide, sharp = drawn.strips
    assert wide.cut_low and wide.cut_high and (wide.low, wide.high) == (0.0, 100.0)
    assert not sharp.cut_low and not sharp.cut_high
    assert sharp.high is not None and sharp.low is not None and sharp.high - sharp.low > 8, "it can still be seen"
    assert drawn.margin is not None and drawn.shade == (0.0, drawn.margin)
    above = forest([answer("a", 2.0)], margin=1.0, neutral=0.0, holds="above")
    assert above.shade is not None and math.isclose(sum(above.shade), 100.0)


def chart(arms: int, seeds: int = 2, **options: object) -> Chart:
    made = [
        Line(arm=f"arm-{a}", seed=s, run=f"r{a}{s}", points=tuple((float(x), 5.0 - x / 10 + a + s) for x in range(11)))
        for a in range(arms)
        for s in range(seeds)
    ]
    return Chart(title="t", metric="m", lines=tuple(made), x_label="step", y_label="m", **options)  # type: ignore[arg-type]


def test_a_chart_stays_inside_its_frame_and_names_what_it_leaves_out() -> None:
    drawn = lines(chart(12))
    assert len(drawn.drawn) == ARMS and drawn.left_out == 4
    numbers = [float(n) for line in drawn.drawn for pair in line.path[1:].split("L") for n in pair.split(",")]
    xs, ys = numbers[::2], numbers[1::2]
    assert min(xs) == LEFT and max(xs) == WIDTH - RIGHT
    assert min(ys) >= TOP and max(ys) <= HEIGHT - BOTTOM
    heights = sorted(line.label for line in drawn.drawn)
    assert all(b - a >= 12.9 for a, b in pairwise(heights)), "no name covers another"


def test_the_band_reaches_from_the_lowest_to_the_highest_seed() -> None:
    (line,) = lines(chart(1)).drawn
    upper = [float(pair.split(",")[1]) for pair in line.band[1:-1].split("L")[:11]]
    mean = [float(pair.split(",")[1]) for pair in line.path[1:].split("L")]
    lower = [float(pair.split(",")[1]) for pair in line.band[1:-1].split("L")[11:]][::-1]
    for high, middle, low in zip(upper, mean, lower, strict=True):
        assert high < middle < low and math.isclose(middle - high, low - middle, abs_tol=0.11)
    assert lines(chart(1, seeds=1)).drawn[0].band == "", "one seed has no band"


def test_a_chart_of_what_is_not_finite_draws_what_there_is() -> None:
    lost = Line(arm="lost", points=((0.0, None), (1.0, None)))
    half = Line(arm="half", points=((0.0, 1.0), (1.0, None), (2.0, 3.0)))
    drawn = lines(Chart(title="t", metric="m", lines=(lost, half), x_label="x", y_label="y", rule=2.0))
    assert drawn.drawn[0].path == "" and drawn.drawn[1].path.count(",") == 2 and drawn.rule is not None
    assert lines(Chart(title="t", metric="m", lines=(), x_label="x", y_label="y")).drawn == ()


def test_parts_of_a_bar_sum_to_it() -> None:
    made = stacks(
        Bars(title="t", parts=("a", "b"), rows=(("x", (3.0, 1.0), "4 s"), ("y", (0.0, 0.0), "0 s")), unit="s")
    )
    assert [part[:3] for part in made[0].parts] == [(0, 0.0, 75.0), (1, 75.0, 25.0)]
    assert made[0].parts[0][3] == "a: 3 s (75 %)" and made[1].parts == ()


def test_a_histogram_whose_edges_do_not_fit_is_left_out() -> None:
    good = bins(Histogram(title="t", edges=(0.0, 1.0, 3.0), counts=(2, 4)))
    assert [entry[:3] for entry in good.bins] == [(0.0, 33.333, 50.0), (33.333, 66.667, 100.0)]
    assert bins(Histogram(title="t", edges=(0.0, 1.0), counts=(2, 4))).bins == ()
    assert bins(Histogram(title="t", edges=(1.0, 1.0), counts=(2,))).bins == ()


def test_names_at_the_bottom_move_up_and_push_only_what_they_meet():
    from ablab.report.drawing import BOTTOM, HEIGHT, _spread

    floor = HEIGHT - BOTTOM
    assert _spread([10.0, floor, floor - 1.0, floor - 2.0]) == [10.0, floor, floor - 13.0, floor - 26.0]
