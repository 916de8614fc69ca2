"""Draws figures with matplotlib: PDF, SVG and PNG for papers. Needs the extra `plots`.

Colours are those of Okabe and Ito, told apart by colour-blind readers, and never the only sign: arms also differ in
line style, verdicts are written out. Names are text, never mathematics. Equal figures give equal files.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from ablab.contract.failure import ConfigError
from ablab.report.figures import Curves, Figure, Forest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Format = Literal["pdf", "svg", "png"]

#: Okabe & Ito, "Color universal design" (2008), the yellow left out: it cannot be seen on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_FONTS = ("DejaVu Sans", "Noto Sans CJK KR", "Noto Sans CJK SC", "Noto Sans CJK JP", "NanumGothic", "Malgun Gothic",
          "Apple SD Gothic Neo", "WenQuanYi Zen Hei", "SimHei")  # fmt: skip
_SETTINGS: dict[Any, Any] = {
    "text.parse_math": False,
    "text.usetex": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "ablab",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 9,
    "legend.frameon": False,
}
_METADATA: dict[Format, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


def draw(figure: Figure, form: Format) -> bytes:
    """Return a figure as the content of a PDF, SVG or PNG file.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    with _settings():
        from matplotlib.figure import Figure as Canvas

        height = 3.6 if isinstance(figure, Curves) else 1.4 + 0.32 * len(figure.arms)
        canvas = Canvas(figsize=(6.4, height), layout="constrained")
        axes = canvas.add_subplot()
        if isinstance(figure, Curves):
            _draw_curves(axes, figure)
        else:
            _draw_forest(axes, figure)
        axes.set_title(figure.title, loc="left", fontsize=10)
        stream = io.BytesIO()
        canvas.savefig(stream, format=form, metadata=_METADATA[form], dpi=200)
        return stream.getvalue()


@contextmanager
def _settings() -> Iterator[None]:
    try:
        import matplotlib
        from matplotlib import font_manager
    except ImportError:
        raise ConfigError(
            "figures as PDF, SVG or PNG need matplotlib: pip install 'ablab[plots]' (--format csv needs nothing)"
        ) from None
    there = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [name for name in _FONTS if name in there] or ["sans-serif"]
    with matplotlib.rc_context({**_SETTINGS, "font.family": fonts}), warnings.catch_warnings():
        # A machine without a font for a name's script draws boxes; that is no reason for a warning a glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _draw_curves(axes: Axes, figure: Curves) -> None:
    # Arms of a comparison keep their colours from figure to figure, whichever of them a figure shows.
    order = [*figure.order, *(arm for arm in figure.arms if arm not in figure.order)]
    faint = 0.18 if len(figure.arms) <= 4 else 0.1
    for place, arm in enumerate(order):
        colour, style = COLOURS[place % len(COLOURS)], STYLES[place // len(COLOURS) % len(STYLES)]
        band = figure.band(arm)
        if band is not None:
            seeds = "1 seed" if band.n == 1 else f"{band.n} seeds"
            marker = "o" if len(band.steps) <= 12 else None
            axes.plot(
                band.steps, band.mean, color=colour, linestyle=style, marker=marker, markersize=3, linewidth=1.5,
                label=f"{arm} ({seeds})",
            )  # fmt: skip
            if band.n > 1:
                axes.fill_between(band.steps, band.low, band.high, color=colour, alpha=faint, linewidth=0)
        for trace in figure.traces:
            if trace.arm == arm and not trace.complete:
                axes.plot(
                    trace.steps, trace.values, color=colour, linestyle=style, linewidth=0.8, alpha=0.8,
                    label=f"{arm}, seed {trace.seed} ({trace.status})",
                )  # fmt: skip
    if figure.neutral is not None:
        axes.axhline(figure.neutral, color="0.5", linewidth=0.8)
    if figure.rule is not None:
        axes.axhline(figure.rule, color="0.2", linewidth=1.0, linestyle=(0, (4, 2)), label=figure.rule_label)
    if figure.log and _positive(figure):
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
    axes.set_xlabel("step")
    axes.set_ylabel(f"{figure.y_label} {'↓' if figure.better == 'lower' else '↑'}")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def _positive(figure: Curves) -> bool:
    return all(value > 0 for trace in figure.traces for value in trace.values if math.isfinite(value))


def _draw_forest(axes: Axes, figure: Forest) -> None:
    log = figure.log and all(value > 0 for value in _core(figure))
    left, right = _limits(figure, log=log)
    for row, arm in enumerate(figure.arms):
        if arm.low is not None and arm.high is not None:
            ends = [max(arm.low, left), min(arm.high, right)]
            axes.plot(ends, [row, row], color=COLOURS[0], linewidth=2.0, solid_capstyle="butt")
            for end, outside, arrow in ((left, arm.low < left, "<"), (right, arm.high > right, ">")):
                if outside:
                    axes.plot([end], [row], arrow, color=COLOURS[0], markersize=6, clip_on=False)
        axes.plot([arm.point], [row], "|", color=COLOURS[0], markersize=14, markeredgewidth=2.0)
        values = [value for _, value in arm.values]
        axes.plot(values, [row] * len(values), "o", color=COLOURS[1], markersize=4, alpha=0.9, zorder=4)
        axes.annotate(
            arm.verdict, (1.03, row), xycoords=("axes fraction", "data"), va="center", fontsize=7, annotation_clip=False
        )
    if figure.neutral is not None:
        axes.axvline(figure.neutral, color="0.5", linewidth=0.8)
    if figure.margin is not None:
        axes.axvline(figure.margin, color="0.2", linewidth=1.0, linestyle=(0, (4, 2)))
    if log:
        axes.set_xscale("log")
    axes.set_xlim(left, right)
    if log:
        _plain_numbers(axes.xaxis)
    axes.set_yticks(list(range(len(figure.arms))), [arm.name for arm in figure.arms])
    axes.set_ylim(len(figure.arms) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(figure.x_label + ("" if figure.margin is None else f"; dashed: margin {figure.margin:g}"))


def _core(figure: Forest) -> list[float]:
    """Return the numbers that must be on the axis, whatever the intervals: points, estimates, margin, neutral."""
    lines = [value for value in (figure.margin, figure.neutral) if value is not None]
    return [*lines, *(value for arm in figure.arms for value in (arm.point, *(v for _, v in arm.values)))]


def _limits(figure: Forest, *, log: bool) -> tuple[float, float]:
    """Return the ends of the axis: intervals far wider than the points are cut there, and an arrow says so."""
    scale, back = (math.log, math.exp) if log else (float, float)
    core = [scale(value) for value in _core(figure) if math.isfinite(value)]
    low, high = min(core), max(core)
    room = max(high - low, 0.02 * max(abs(low), abs(high), 1.0))
    ends = [
        scale(value) if value > 0 or not log else -math.inf
        for arm in figure.arms
        for value in (arm.low, arm.high)
        if value is not None
    ]
    left = max(low - 1.5 * room, min([low, *ends]) - 0.1 * room)
    right = min(high + 1.5 * room, max([high, *ends]) + 0.1 * room)
    return back(left), back(right)


def _plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis with numbers as people write them, few enough to be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    if high / low < 5:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,), numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
