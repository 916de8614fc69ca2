"""A report as data: sections of blocks. Sections are written once; Markdown and HTML are two renderings of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["good", "bad", "open", "plain"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A table cell: text, and optionally the run it leads back to and how it reads at a glance."""

    text: str
    run: str = ""
    tone: Tone = "plain"
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph. Inline code is set in backticks; nothing else is markup."""

    text: str
    strong: bool = False
    tone: Tone = "plain"


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """A list of short statements."""

    items: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; numeric columns are right-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Code:
    """Lines to be read or typed as they are."""

    text: str
    language: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart: one arm, with the interval over its seeds where there is one.

    `points` are (x, y); `low` and `high` have the same x.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    low: tuple[tuple[float, float], ...] = ()
    high: tuple[tuple[float, float], ...] = ()
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over a common x. Markdown shows a table of its ends; HTML draws it."""

    title: str
    lines: tuple[Line, ...]
    x_label: str
    y_label: str
    better: Literal["lower", "higher", ""] = ""
    log_y: bool = False


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points and intervals of arms on one axis, with the margin of the criterion.

    Each item: (arm, values by seed, low, centre, high, tone).
    """

    title: str
    items: tuple[tuple[str, tuple[float, ...], float | None, float | None, float | None, Tone], ...]
    margin: float | None
    label: str
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Folded:
    """Blocks a reader opens when wanted."""

    title: str
    blocks: tuple[Block, ...]


Block = Text | Bullets | Table | Code | Chart | Points | Folded


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of the report; `id` is its stable anchor."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    language: str = "en"
    meta: dict[str, str] = field(default_factory=dict)


def row(*cells: Cell | str) -> tuple[Cell, ...]:
    """Return table cells, plain text made into cells."""
    return tuple(cell if isinstance(cell, Cell) else Cell(text=cell) for cell in cells)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell | str]], *, caption: str = "", numeric: Sequence[int] = ()
) -> Table:
    """Return a table from rows of cells or text."""
    return Table(
        columns=tuple(columns), rows=tuple(row(*cells) for cells in rows), caption=caption, numeric=frozenset(numeric)
    )
