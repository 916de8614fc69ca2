"""Render a report as Markdown. Every text from a study or a log is escaped; what HTML draws stands as numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from ablab.contract.units import figure
from ablab.report.document import (
    ARROWS,
    SYMBOLS,
    Bars,
    Block,
    Bullets,
    Card,
    Cards,
    Cell,
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
    Section,
    Table,
    Text,
    Tone,
)

#: Everything that any reader takes as the end of a line.
_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_SPECIAL = re.compile(r"([\\*_{}\[\]<>#|~])")


def render(document: Document) -> str:
    """Return the document as GitHub-flavoured Markdown."""
    lines = [f"# {escape(document.title)}", ""]
    if document.subtitle:
        lines += [escape(document.subtitle), ""]
    status = " · ".join((*document.status, document.written))
    if status:
        lines += [escape(status), ""]
    for section in document.sections:
        lines += section_lines(section)
    return "\n".join(lines).rstrip() + "\n"


def section_lines(section: Section) -> list[str]:
    """Return a section with its heading; nothing for one without blocks."""
    if not section.blocks:
        return []
    lines = [f"## {escape(section.title)}", ""]
    for block in section.blocks:
        lines += [*block_lines(block), ""]
    return lines


def escape(text: str) -> str:
    """Escape Markdown and HTML, line breaks included; inline code in backticks stays as it is."""
    parts = _BREAKS.sub(" ", text).split("`")
    if len(parts) % 2 == 0:
        return _SPECIAL.sub(r"\\\1", "'".join(parts))
    return "`".join(part if index % 2 else _SPECIAL.sub(r"\\\1", part) for index, part in enumerate(parts))


def block_lines(block: Block) -> Iterator[str]:
    """Yield the lines of one block."""
    return _RENDERERS[type(block)](block)


def _mark(tone: Tone) -> str:
    return f"{SYMBOLS[tone]} " if SYMBOLS[tone] else ""


def _text_lines(block: Text) -> Iterator[str]:
    text = _mark(block.tone) + escape(block.text)
    yield f"**{text}**" if block.strong else text


def _heading_lines(block: Heading) -> Iterator[str]:
    yield f"{'#' * block.level} {escape(block.text)}"


def _bullet_lines(block: Bullets) -> Iterator[str]:
    yield from (f"- {escape(item)}" for item in block.items)


def _fact_lines(block: Facts) -> Iterator[str]:
    yield from (f"- {escape(name)}: {escape(value)}" for name, value in block.items)


def _code_lines(block: Code) -> Iterator[str]:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", block.text)), default=0))
    yield f"{fence}{block.language}"
    yield block.text.rstrip("\n")
    yield fence


def _folded_lines(block: Folded) -> Iterator[str]:
    yield f"<details><summary>{escape(block.title)}</summary>"
    yield ""
    for inner in block.blocks:
        yield from block_lines(inner)
        yield ""
    yield "</details>"


def _table_lines(block: Table) -> Iterator[str]:
    if block.caption:
        yield f"{escape(block.caption)}"
        yield ""
    yield "| " + " | ".join(_in_table(name) for name in block.columns) + " |"
    yield "|" + "|".join("--:" if index in block.numeric else "---" for index in range(len(block.columns))) + "|"
    for cells in block.rows:
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"
    if block.footnotes:
        yield ""
        yield from (f"{number}. {escape(text)}" for number, text in enumerate(block.footnotes, 1))


def _cell(cell: Cell) -> str:
    text = f"`{cell.text}`" if cell.code and cell.text and "`" not in cell.text else cell.text
    shown = _mark(cell.tone) + _in_table(text)
    if cell.note:
        shown += f" ({_in_table(cell.note)})"
    return shown + "".join(f" <sup>{mark}</sup>" for mark in cell.marks)


def _in_table(text: str) -> str:
    """Return a text for a table, where even code may hold no bar."""
    parts = escape(text).split("`")
    return "`".join(part.replace("|", "\\|") if index % 2 else part for index, part in enumerate(parts))


def _cards_lines(block: Cards) -> Iterator[str]:
    """Yield one overview row a comparison, then what each arm's verdict rests on."""
    yield "| " + " | ".join(escape(name) for name in block.columns) + " |"
    yield "|---|---|---|"
    for card in block.cards:
        yield f"| {_in_table(card.name)} | {_in_table(card.asked)} | {_badges(card)} |"
    for card in block.cards:
        yield ""
        yield f"**{escape(card.name)}**" + (f" — {escape(card.question)}" if card.question else "")
        yield ""
        for answer in card.answers:
            role = f" ({escape(answer.role)})" if answer.role else ""
            said = f"{escape(answer.word)}. {escape(answer.sentence)}".strip()
            yield f"- {_mark(answer.tone)}**{escape(answer.arm)}**{role}: {said}"
        yield from (f"- {escape(warning)}" for warning in card.warnings)


def _badges(card: Card) -> str:
    if len(card.badges) == 1 and len(card.answers) == 1:
        word, tone, _ = card.badges[0]
        return f"{_mark(tone)}{_in_table(word)}"
    return "; ".join(
        f"{_mark(tone)}{_in_table(word)}: {_in_table(', '.join(arms))}" for word, tone, arms in card.badges
    )


def _chart_lines(block: Chart) -> Iterator[str]:
    yield from _ends(block, ("arm", "first", "last", "seeds"))


def _curves_lines(block: Curves) -> Iterator[str]:
    for place, chart in enumerate(block.charts):
        if place:
            yield ""
        yield from _ends(chart, block.columns)


def _ends(chart: Chart, columns: tuple[str, ...]) -> Iterator[str]:
    """Yield the means of the first and last points of each arm: Markdown draws nothing."""
    label = f"{chart.y_label} {ARROWS[chart.better]}".strip()
    yield f"{escape(chart.title)} ({escape(label)}; {escape(chart.x_label)})"
    yield ""
    yield "| " + " | ".join(_in_table(name) for name in columns) + " |"
    yield "|---|--:|--:|---|"
    arms: dict[str, list[Line]] = {}
    for line in chart.lines:
        arms.setdefault(line.arm, []).append(line)
    for arm, lines in arms.items():
        seeds = ", ".join(str(line.seed) for line in lines if line.seed is not None)
        yield f"| {_in_table(arm)} | {_end(lines, 0)} | {_end(lines, -1)} | {seeds} |"


def _end(lines: list[Line], place: int) -> str:
    ends = [line.points[place] for line in lines if line.points]
    values = [y for _, y in ends if y is not None]
    if not values:
        return "—"
    steps = {x for x, _ in ends}
    at = f" @{figure(steps.pop())}" if len(steps) == 1 else ""
    return f"{figure(sum(values) / len(values))}{at}"


def _points_lines(block: Points) -> Iterator[str]:
    """Yield the points of each arm as numbers."""
    margin = f"; {escape(block.margin_label)}" if block.margin_label else ""
    yield f"{escape(block.title)} ({escape(block.axis)}{margin})"
    yield ""
    for answer in block.answers:
        interval = (
            "" if answer.low is None or answer.high is None else f" [{figure(answer.low)}, {figure(answer.high)}]"
        )
        values = ", ".join(figure(value) for value in answer.values)
        yield f"- {escape(answer.arm)}: {figure(answer.point)}{escape(interval)}: {values}"


def _bars_lines(block: Bars) -> Iterator[str]:
    yield escape(block.title)
    yield ""
    yield "| | " + " | ".join(_in_table(name) for name in block.parts) + " | = |"
    yield "|---|" + "--:|" * (len(block.parts) + 1)
    for name, values, total in block.rows:
        yield (
            f"| {_in_table(name)} | "
            + " | ".join(figure(value, digits=3) for value in values)
            + f" | {escape(total)} |"
        )


def _histogram_lines(block: Histogram) -> Iterator[str]:
    """Yield a histogram as its fullest bin and where it lies."""
    whole = sum(block.counts)
    yield f"{escape(block.title)} ({escape(block.x_label)}; n = {whole:,})"
    if whole and len(block.edges) == len(block.counts) + 1:
        top = max(range(len(block.counts)), key=block.counts.__getitem__)
        low, high = figure(block.edges[top]), figure(block.edges[top + 1])
        yield ""
        yield f"- {low} – {high}: {block.counts[top]:,} / {whole:,}"


def _image_lines(block: Image) -> Iterator[str]:
    yield f"`{block.name.replace('`', '')}`"


_RENDERERS: dict[type[Any], Callable[[Any], Iterator[str]]] = {
    Text: _text_lines,
    Heading: _heading_lines,
    Bullets: _bullet_lines,
    Facts: _fact_lines,
    Table: _table_lines,
    Code: _code_lines,
    Cards: _cards_lines,
    Chart: _chart_lines,
    Curves: _curves_lines,
    Points: _points_lines,
    Bars: _bars_lines,
    Histogram: _histogram_lines,
    Image: _image_lines,
    Folded: _folded_lines,
}
