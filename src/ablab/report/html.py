"""Render a report as one HTML file that needs nothing else: no request, no font, no library; scripts only add to it.

Templates escape everything; data for the script is JSON in which no tag can end. A content policy allows this page's
own style and script by their hashes and nothing else. Charts are drawn here as well, so that the page prints and
reads without scripts.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablab.report import drawing
from ablab.report.document import (
    ARROWS,
    SYMBOLS,
    Bars,
    Block,
    Bullets,
    Cards,
    Chart,
    Code,
    Curves,
    Document,
    Facts,
    Folded,
    Heading,
    Histogram,
    Image,
    Line,
    Points,
    Table,
    Text,
)
from ablab.report.language import Translator

ASSETS = Path(__file__).parent / "assets"
#: Significant digits of the values a script draws.
_DIGITS = 5
_NAMES: dict[type[Any], str] = {
    Text: "text",
    Heading: "heading",
    Bullets: "bullets",
    Facts: "facts",
    Table: "table",
    Code: "code",
    Cards: "cards",
    Chart: "chart",
    Curves: "curves",
    Points: "points",
    Bars: "bars",
    Histogram: "histogram",
    Image: "image",
    Folded: "folded",
}


def render(document: Document) -> str:
    """Return the document as one HTML page in its language."""
    from markupsafe import Markup

    t = Translator(document.language)
    style, script = _asset("style.css"), _asset("script.js")
    figures = _Figures()
    page = _environment().get_template("page.html")
    return str(
        page.render(
            document=document,
            sections=[section for section in document.sections if section.blocks],
            t=t,
            n=t.n,
            style=Markup(style),
            script=Markup(script),
            policy=policy(style, script),
            figures=figures,
            data=lambda: Markup(in_script({"words": _words(t), "figures": figures.found, "language": t.language})),
        )
    )


def policy(style: str, script: str) -> str:
    """Return the content policy: this page's own style and script, pictures inside the file, and nothing else."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def in_script(value: Any) -> str:
    """Return JSON in which nothing can end the script element it stands in, or begin a comment or another tag."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def code_parts(text: str) -> list[tuple[str, bool]]:
    """Split a text into (part, is code) at its backticks; an odd number of them is no markup."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return [(text, False)]
    return [(part, place % 2 == 1) for place, part in enumerate(parts) if part]


class _Figures:
    """Charts of a page, numbered as they are met, with the data its script draws them from."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def add(self, charts: Iterable[Chart]) -> int:
        """Keep charts for the script and return the number of their figure."""
        self.found.append({"charts": [_chart(chart) for chart in charts]})
        return len(self.found)


def _chart(chart: Chart) -> dict[str, Any]:
    arms = list(dict.fromkeys(line.arm for line in chart.lines if line.points))
    places = {arm: place for place, arm in enumerate(arms)}
    return {
        "title": chart.title,
        "metric": chart.metric,
        "x": chart.x_label,
        "y": f"{chart.y_label} {ARROWS[chart.better]}".strip(),
        "log": chart.log_y,
        "many": chart.many,
        "rule": chart.rule,
        "ruleLabel": chart.rule_label,
        "arms": arms,
        "lines": [_line(line, places[line.arm]) for line in chart.lines if line.points],
    }


def _line(line: Line, place: int) -> dict[str, Any]:
    return {
        "arm": place,
        "seed": line.seed,
        "run": line.run,
        "x": [int(x) if x == int(x) else _short(x) for x, _ in line.points],
        "y": [None if y is None else _short(y) for _, y in line.points],
    }


def _short(value: float) -> float:
    """Return a number with no more digits than a screen can show."""
    return float(f"{value:.{_DIGITS}g}")


def _words(t: Translator) -> dict[str, str]:
    """Return what the script says."""
    return {
        "metric": t("metric"),
        "smoothing": t("smoothing"),
        "logarithmic": t("logarithmic"),
        "seeds": t("seeds"),
        "band": t("as a band"),
        "each": t("each seed"),
        "arms": t("arms"),
        "all": t("all"),
        "none": t("none"),
        "find": t("find an arm"),
        "seed": t("seed"),
        "mean": t("mean"),
        "run": t("run"),
        "light": t("light"),
        "dark": t("dark"),
        "system": t("as the system"),
        "open": t("open all"),
        "fold": t("fold all"),
        "keys": t("Arrow keys: left and right move along the curve, up and down change the arm."),
        "nothing": t("No arm is chosen."),
    }


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@lru_cache(maxsize=4)
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8").strip()


@lru_cache(maxsize=1)
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        kind=_kind,
        parts=code_parts,
        data_uri=_data_uri,
        forest=_forest,
        lines=drawing.lines,
        stacks=drawing.stacks,
        bins=drawing.bins,
        ends=_ends,
    )
    environment.globals.update(symbols=SYMBOLS, arrows=ARROWS)
    return environment


def _kind(block: Block) -> str:
    return _NAMES[type(block)]


def _forest(block: Any) -> drawing.Forest:
    """Lay out the arms of a card or of points that have an estimate."""
    shown = [answer for answer in block.answers if answer.point is not None]
    return drawing.forest(shown, margin=block.margin, neutral=block.neutral, holds=block.holds, log=block.log)


def _ends(chart: Chart, t: Translator) -> list[tuple[str, str, str, str]]:
    """Return (arm, first, last, seeds) of a chart: what it shows, for who does not see it."""
    rows = []
    for arm, members in drawing.by_arm(chart.lines).items():
        ends = []
        for place in (0, -1):
            found = [line.points[place] for line in members]
            values = [y for _, y in found if y is not None]
            steps = {x for x, _ in found}
            at = f" @{t.figure(steps.pop())}" if len(steps) == 1 else ""
            ends.append(f"{t.figure(sum(values) / len(values))}{at}" if values else "—")
        seeds = ", ".join(str(line.seed) for line in members if line.seed is not None)
        rows.append((arm, ends[0], ends[1], seeds))
    return rows


def _data_uri(image: Image) -> str:
    return f"data:{image.kind};base64,{base64.b64encode(image.data).decode()}"
