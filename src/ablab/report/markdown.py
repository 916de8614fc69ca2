"""Render a report as Markdown. Every text from a study or a log is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ablab.report.document import Block, Bullets, Cell, Chart, Code, Document, Folded, Points, Table, Text
from ablab.contract.units import figure

_SPECIAL = re.compile(r"([\\*_{}\[\]<>#|~])")
_MARKS = {"good": "✔ ", "bad": "✘ ", "open": "? ", "plain": ""}


def render(document: Document) -> str:
    """Return the document as GitHub-flavoured Markdown."""
    lines = [f"# {escape(document.title)}", ""]
    if document.subtitle:
        lines += [escape(document.subtitle), ""]
    for section in document.sections:
        if section.blocks:
            lines += [f"## {escape(section.title)}", ""]
            for block in section.blocks:
                lines += [*block_lines(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Escape Markdown and HTML, line breaks included; inline code in backticks stays as it is."""
    parts = text.replace("\r", " ").replace("\n", " ").split("`")
    if len(parts) % 2 == 0:
        return _SPECIAL.sub(r"\\\1", "'".join(parts))
    return "`".join(part if index % 2 else _SPECIAL.sub(r"\\\1", part) for index, part in enumerate(parts))


def block_lines(block: Block) -> Iterator[str]:
    """Yield the lines of one block."""
    if isinstance(block, Text):
        text = _MARKS[block.tone] + escape(block.text)
        yield f"**{text}**" if block.strong else text
    elif isinstance(block, Bullets):
        yield from (f"- {escape(item)}" for item in block.items)
    elif isinstance(block, Table):
        yield from _table_lines(block)
    elif isinstance(block, Code):
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", block.text)), default=0))
        yield f"{fence}{block.language}"
        yield block.text.rstrip("\n")
        yield fence
    elif isinstance(block, Chart):
        yield from _chart_lines(block)
    elif isinstance(block, Points):
        yield from _points_lines(block)
    elif isinstance(block, Folded):
        yield from _folded_lines(block)


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
    yield "| " + " | ".join(escape(name) for name in block.columns) + " |"
    yield "|" + "|".join("--:" if index in block.numeric else "---" for index in range(len(block.columns))) + "|"
    for cells in block.rows:
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(cell: Cell) -> str:
    text = _MARKS[cell.tone] + escape(cell.text)
    return f"{text} ({escape(cell.note)})" if cell.note else text


def _chart_lines(block: Chart) -> Iterator[str]:
    """Show each line by its ends: Markdown draws nothing."""
    yield f"{escape(block.title)} ({escape(block.y_label)} over {escape(block.x_label)}; first and last point)"
    yield ""
    yield "| arm | first | last |"
    yield "|---|--:|--:|"
    for line in block.lines:
        if line.points:
            (x0, y0), (x1, y1) = line.points[0], line.points[-1]
            yield f"| {escape(line.name)} | {figure(y0)} @{figure(x0)} | {figure(y1)} @{figure(x1)} |"


def _points_lines(block: Points) -> Iterator[str]:
    """Show the points of each arm as numbers."""
    margin = "" if block.margin is None else f"; margin {figure(block.margin)}"
    yield f"{escape(block.title)} ({escape(block.label)}{margin})"
    yield ""
    for name, values, *_ in block.items:
        yield f"- {escape(name)}: " + ", ".join(figure(value) for value in values)
