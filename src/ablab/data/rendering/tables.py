"""Tables of things and numbers, in several styles, with questions whose answers are computed from the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablab.data.rendering.sample import Colour, Pen, Sample, Turn, colours, contrast, one_font, some, width_of
from ablab.data.rendering.wording import Language, Wording, choose, filled

_HEADS = {
    "en": ("Name", ("Price", "Stock", "Year", "Sales", "Weight", "Score", "Orders")),
    "ko": ("이름", ("가격", "재고", "연도", "판매량", "무게", "점수", "주문")),
}
_ASK = {
    "en": {
        "cell": "What is the {column} of {row}?", "most": "Which {first} has the highest {column}?",
        "least": "Which {first} has the lowest {column}?", "rows": "How many rows of data does the table have?",
        "sum": "What is the sum of {column}?", "above": "How many rows have a {column} above {bound}?",
        "claim": "Is it true that the {column} of {row} is {value}?", "yes": "Yes", "no": "No",
        "difference": "How much larger is the {column} of {row} than that of {other}?",
    },
    "ko": {
        "cell": "{row}의 {column:topic} 얼마입니까?", "most": "{column:subject} 가장 높은 {first:topic} 무엇입니까?",
        "least": "{column:subject} 가장 낮은 {first:topic} 무엇입니까?", "rows": "표에는 자료 행이 몇 개 있습니까?",
        "sum": "{column}의 합은 얼마입니까?", "above": "{column:subject} {bound}보다 큰 행은 몇 개입니까?",
        "claim": "{row}의 {column:subject} {value:called} 것이 맞습니까?", "yes": "예", "no": "아니요",
        "difference": "{row}의 {column:topic} {other}의 {column}보다 얼마나 더 큽니까?",
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The content of a table: names of rows, heads of columns, whole numbers."""

    first: str
    names: tuple[str, ...]
    heads: tuple[str, ...]
    numbers: np.ndarray

    def texts(self) -> list[list[str]]:
        """Return all cells as they are written, the heads first."""
        rows = [[name, *map(str, row)] for name, row in zip(self.names, self.numbers.tolist(), strict=True)]
        return [[self.first, *self.heads], *rows]


def table(
    wording: Wording, fonts: Sequence[Path], language: Language, generator: np.random.Generator, most: int
) -> Sample:
    """Return a table with at most `most` questions about it."""
    from PIL import Image, ImageDraw

    grid = drawn_grid(wording, language, generator)
    font, size = one_font(fonts, generator), int(generator.integers(15, 23))
    ink, paper = colours(generator, light=True)
    texts = grid.texts()
    pad, tall = int(generator.integers(8, 17)), size + int(generator.integers(10, 19))
    widths = [
        2 * pad + max(width_of(row[i], font=font, size=size) for row in texts) for i in range(len(grid.heads) + 1)
    ]
    margin = int(generator.integers(8, 31))
    image = Image.new("RGB", (sum(widths) + 2 * margin, tall * len(texts) + 2 * margin), paper)
    pen = Pen(draw=ImageDraw.Draw(image), written=[])
    edges = np.concatenate([[0], np.cumsum(widths)]) + margin
    _decorate(pen, edges, tall, len(texts), margin, ink, paper, generator)
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            right = j > 0
            at = (int(edges[j + 1] - pad) if right else int(edges[j] + pad), margin + i * tall + (tall - size) // 2)
            pen.write(text, at, font=font, size=size, ink=ink, align="right" if right else "left")
    turns = some(questions(grid, language, generator), most, generator)
    return Sample(image=image, written=tuple(pen.written), turns=turns, language=language, paper=paper)


def drawn_grid(wording: Wording, language: Language, generator: np.random.Generator) -> Grid:
    """Return the content of a table: 3 to 7 rows, 1 to 4 columns of numbers."""
    first, all_heads = _HEADS[language]
    heads = tuple(all_heads[i] for i in generator.permutation(len(all_heads))[: int(generator.integers(1, 5))])
    names = wording.words(language, int(generator.integers(3, 8)), generator)
    years = np.array([head in ("Year", "연도") for head in heads])
    numbers = generator.integers(1, 1000, (len(names), len(heads)))
    numbers[:, years] = generator.integers(1950, 2026, (len(names), int(years.sum())))
    return Grid(first=first, names=names, heads=heads, numbers=numbers)


def questions(grid: Grid, language: Language, generator: np.random.Generator) -> list[Turn]:
    """Return questions about a drawn column and row; those without one true answer are left out."""
    ask, j, i = _ASK[language], int(generator.integers(len(grid.heads))), int(generator.integers(len(grid.names)))
    column, values, row = grid.heads[j], grid.numbers[:, j], grid.names[i]
    value, first = int(values[i]), grid.first.lower()
    turns = [
        Turn(question=filled(ask["cell"], column=column, row=row), answer=str(value)),
        Turn(question=ask["rows"], answer=str(len(grid.names))),
    ]
    for name, extreme in (("most", values.max()), ("least", values.min())):
        if int((values == extreme).sum()) == 1:
            winner = grid.names[int(np.flatnonzero(values == extreme)[0])]
            turns.append(Turn(question=filled(ask[name], column=column, first=first), answer=winner))
    if column not in ("Year", "연도"):
        turns.append(Turn(question=filled(ask["sum"], column=column), answer=str(int(values.sum()))))
    bound = int(np.median(values))
    above = int((values > bound).sum())
    turns.append(Turn(question=filled(ask["above"], column=column, bound=bound), answer=str(above)))
    true = bool(generator.random() < 0.5)
    claimed = value if true else value + int(generator.integers(1, 60))
    claim = filled(ask["claim"], column=column, row=row, value=claimed)
    turns.append(Turn(question=claim, answer=ask["yes"] if true else ask["no"]))
    other = int(np.argmin(values))
    if values[other] < value:
        asked = filled(ask["difference"], column=column, row=row, other=grid.names[other])
        turns.append(Turn(question=asked, answer=str(value - int(values[other]))))
    return turns


def _decorate(
    pen: Pen, edges: np.ndarray, tall: int, rows: int, margin: int, ink: Colour, paper: Colour,
    generator: np.random.Generator,
) -> None:  # fmt: skip
    """Draw shades and lines: a full grid, lines between rows, shaded rows, or a line below the heads."""
    left, right, bottom = int(edges[0]), int(edges[-1]), margin + tall * rows
    style = choose(("grid", "rows", "zebra", "plain"), generator)
    shade = _shade(paper, ink)
    if style == "zebra":
        for i in range(1, rows, 2):
            pen.draw.rectangle((left, margin + i * tall, right, margin + (i + 1) * tall), fill=shade)
    elif generator.random() < 0.5:
        pen.draw.rectangle((left, margin, right, margin + tall), fill=shade)
    if style in ("grid", "rows"):
        for i in range(rows + 1):
            pen.draw.line((left, margin + i * tall, right, margin + i * tall), fill=ink)
    if style == "grid":
        for edge in map(int, edges):
            pen.draw.line((edge, margin, edge, bottom), fill=ink)
    if style in ("zebra", "plain"):
        pen.draw.line((left, margin + tall, right, margin + tall), fill=ink, width=2)


def _shade(paper: Colour, ink: Colour) -> Colour:
    """Return a darker paper on which the ink can still be read, or the paper itself."""
    red, green, blue = (int(value * 0.9) for value in paper)
    return (red, green, blue) if contrast((red, green, blue), ink) >= 4.5 else paper
