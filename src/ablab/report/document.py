"""A report as data: sections of blocks. Sections are written once; Markdown and HTML are two renderings of them.

Blocks hold text and numbers, never markup: escaping belongs to the renderings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["good", "bad", "open", "blind", "plain"]
Better = Literal["lower", "higher", ""]
Side = Literal["below", "above", ""]

#: How a tone reads where colour is not seen.
SYMBOLS: dict[Tone, str] = {"good": "✔", "bad": "✘", "open": "?", "blind": "⊘", "plain": ""}
#: Which way a metric is better, as every figure shows it.
ARROWS: dict[str, str] = {"lower": "↓", "higher": "↑", "": ""}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A table cell.

    Args:
        text: what it says.
        run: folder names of the runs its number comes from, separated by spaces.
        tone: how it reads at a glance; a tone has a symbol besides its colour.
        note: said in smaller letters after the text.
        link: anchor of this document that says more.
        marks: footnotes of the table, from 1.
        code: set in a fixed width (paths, commands).
        foreign: the text is not in the language of the document (a log line, an audit's sentence).
    """

    text: str
    run: str = ""
    tone: Tone = "plain"
    note: str = ""
    link: str = ""
    marks: tuple[int, ...] = ()
    code: bool = False
    foreign: bool = False


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph. Inline code is set in backticks; nothing else is markup."""

    text: str
    strong: bool = False
    tone: Tone = "plain"
    small: bool = False


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading below the section's title; level 3 or 4. `id` is an anchor."""

    text: str
    level: Literal[3, 4] = 3
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """A list of short statements."""

    items: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names with what they are: a short list of terms and their values."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; numeric columns are right-aligned, the first column names its row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    numeric: frozenset[int] = frozenset()
    footnotes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Code:
    """Lines to be read or typed as they are."""

    text: str
    language: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a comparison says of one arm.

    Args:
        word, tone: the verdict in a word, and how it reads.
        short: the estimate as a change, in a few characters.
        sentence: the evidence in a sentence.
        values: points by seed, on the condition's own scale.
        low, point, high: interval and estimate; None where there is none.
        role: said beside the name (control, must fail).
        link: anchor of the arm.
    """

    arm: str
    word: str
    tone: Tone
    sentence: str
    short: str = ""
    values: tuple[float, ...] = ()
    low: float | None = None
    point: float | None = None
    high: float | None = None
    role: str = ""
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """The verdict on one comparison, for a stranger: badges first, then what was asked, then every arm.

    Args:
        badges: word, tone and the arms it is true of; the most telling first.
        asked: the criterion in words.
        margin, neutral: the criterion's number, and where nothing differs (1 for a ratio, 0 for a difference).
        holds: the side of the margin on which the criterion is satisfied.
        log: the axis of points and intervals is logarithmic.
        axis: what the points are, with unit and direction.
        warnings: what weakens the verdict, each a sentence.
    """

    name: str
    link: str
    question: str
    asked: str
    badges: tuple[tuple[str, Tone, tuple[str, ...]], ...]
    answers: tuple[Answer, ...]
    margin: float | None = None
    neutral: float | None = None
    holds: Side = ""
    log: bool = False
    axis: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cards:
    """The verdicts of all comparisons, one overview row each. `columns` head the row: name, criterion, verdict."""

    cards: tuple[Card, ...]
    columns: tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart: one run of one arm.

    Args:
        arm: name of the arm; lines of one arm are drawn as a band over its seeds.
        seed: None where the arm draws nothing from a seed.
        run: folder name of the run, shown on hovering.
        points: (x, y); y is None where the value was not finite.
    """

    arm: str
    points: tuple[tuple[float, float | None], ...]
    seed: int | None = None
    run: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over a common x. Markdown shows a table of their ends; HTML draws them.

    Args:
        metric: short name, which the reader chooses by.
        y_label: name with unit; the direction comes from `better`.
        rule: a value to draw a line at (the margin), and what it is.
        many: points of a line are many, so that it may be smoothed.
    """

    title: str
    metric: str
    lines: tuple[Line, ...]
    x_label: str
    y_label: str
    better: Better = ""
    log_y: bool = False
    rule: float | None = None
    rule_label: str = ""
    many: bool = False


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Charts of one kind of which the reader looks at one at a time; the first is shown first.

    `columns` head the table of ends: arm, first, last, runs.
    """

    title: str
    charts: tuple[Chart, ...]
    columns: tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points and intervals of arms on one axis, with the margin of the criterion."""

    title: str
    answers: tuple[Answer, ...]
    axis: str
    margin: float | None = None
    margin_label: str = ""
    neutral: float | None = None
    holds: Side = ""
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Stacked bars, one a row: parts of a whole, each with its own unit as text.

    Args:
        parts: names of the parts, in the order they are stacked.
        rows: (name, value of each part, total as text).
    """

    title: str
    parts: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...], str], ...]
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts between edges (one more edge than counts)."""

    title: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True, kw_only=True)
class Image:
    """A small picture, carried inside the file; `kind` is its media type."""

    name: str
    kind: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Folded:
    """Blocks a reader opens when wanted. `id` is an anchor."""

    title: str
    blocks: tuple[Block, ...]
    id: str = ""


Block = (
    Text
    | Heading
    | Bullets
    | Facts
    | Table
    | Code
    | Cards
    | Chart
    | Curves
    | Points
    | Bars
    | Histogram
    | Image
    | Folded
)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of the report; `id` is its stable anchor. A section without blocks is left out."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report.

    Args:
        title: name of the study.
        subtitle: its question.
        status: where it stands, in short statements.
        live: runs are going on, so that a newer report is on its way.
        written: when, in words.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    language: str = "en"
    status: tuple[str, ...] = ()
    live: bool = False
    written: str = ""
    meta: dict[str, str] = field(default_factory=dict)


def row(*cells: Cell | str) -> tuple[Cell, ...]:
    """Return table cells, plain text made into cells."""
    return tuple(cell if isinstance(cell, Cell) else Cell(text=cell) for cell in cells)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    *,
    caption: str = "",
    numeric: Sequence[int] = (),
    footnotes: Sequence[str] = (),
) -> Table:
    """Return a table from rows of cells or text."""
    return Table(
        columns=tuple(columns),
        rows=tuple(row(*cells) for cells in rows),
        caption=caption,
        numeric=frozenset(numeric),
        footnotes=tuple(footnotes),
    )


def without_empty(whole: Table) -> Table:
    """Return the table without the columns, after the first, in which no cell says anything."""
    keep = [
        index
        for index in range(len(whole.columns))
        if index == 0 or any(cells[index].text not in ("", "—") for cells in whole.rows)
    ]
    return Table(
        columns=tuple(whole.columns[index] for index in keep),
        rows=tuple(tuple(cells[index] for index in keep) for cells in whole.rows),
        caption=whole.caption,
        numeric=frozenset(keep.index(index) for index in whole.numeric if index in keep),
        footnotes=whole.footnotes,
    )
