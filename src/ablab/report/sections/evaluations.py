"""What evaluations show beside their metrics: tables, series, distributions, examples and images of any task.

Nothing here knows a task. All of a report's evaluations share one allowance, so that the file stays small.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablab.report.document import Block, Cell, Chart, Folded, Heading, Histogram, Image, Line, Text, table
from ablab.report.sections.curves import pairs

if TYPE_CHECKING:
    from pathlib import Path

    from ablab.analysis.results import RunRecord
    from ablab.contract.result import Distribution, Evaluation, Example, Series
    from ablab.report.view import View

#: Rows of a table, examples of an evaluation, characters of a text, points of a series that are shown.
_ROWS, _EXAMPLES, _CHARACTERS, _POINTS = 60, 6, 600, 200
_KINDS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}


@dataclass
class Allowance:
    """What is left for the evaluations of a report: characters of text and bytes of images."""

    text: int = 1_500_000
    images: int = 2_000_000
    image: int = 300_000

    def take(self, count: int) -> bool:
        """Take this many characters; False when they are not left."""
        self.text -= count
        return self.text >= 0


@dataclass(frozen=True)
class Shown:
    """An evaluation with the run it belongs to."""

    record: RunRecord
    evaluation: Evaluation
    folder: Path


def blocks(view: View, experiment: str, allowance: Allowance) -> list[Block]:
    """Return the evaluations of an arm: those of its first seed in place, the others folded, series over all seeds."""
    found: dict[tuple[str, str], list[Shown]] = {}
    for shown in _read(view, experiment):
        found.setdefault((shown.record.stage, shown.evaluation.name), []).append(shown)
    blocks: list[Block] = []
    for (stage, name), members in found.items():
        if not allowance.take(200):
            break
        blocks.append(Heading(text=f"{stage}: {name}", level=4))
        blocks += _series(view, experiment, members, allowance)
        blocks += list(_one(view, members[0], allowance))
        others = [
            Folded(title=view.t("seed {seed}", seed=other.record.seed), blocks=tuple(inner))
            for other in members[1:]
            if (inner := list(_one(view, other, allowance)))
        ]
        if others:
            blocks.append(Folded(title=view.t("Other seeds"), blocks=tuple(others)))
    return blocks


def _read(view: View, experiment: str) -> Iterator[Shown]:
    """Yield the evaluations of an arm's own runs; files that are missing or damaged are left out."""
    from pydantic import ValidationError

    from ablab.contract.result import Evaluation

    for record in view.own(experiment):
        folder = view.store.run(record.name).path
        for name in record.evaluations:
            try:
                content = (folder / name).read_text(encoding="utf-8")
                yield Shown(record, Evaluation.model_validate_json(content), folder)
            except (OSError, UnicodeError, ValidationError):
                continue


def _one(view: View, shown: Shown, allowance: Allowance) -> Iterator[Block]:
    """Yield tables, distributions, examples and images of one evaluation."""
    evaluation = shown.evaluation
    for each in evaluation.tables:
        rows = [tuple(_text(view, value) for value in row) for row in each.rows[:_ROWS]]
        if not allowance.take(sum(len(text) for row in rows for text in row) + 40 * len(rows)):
            return
        heads = [f"{name} [{each.units[name]}]" if name in each.units else name for name in each.columns]
        numeric = [
            place
            for place in range(len(heads))
            if each.rows and all(isinstance(row[place], int | float) for row in each.rows if place < len(row))
        ]
        rows = [(*row, *[""] * (len(heads) - len(row)))[: len(heads)] for row in rows]
        yield table(heads, rows, caption=each.name, numeric=numeric)
        if len(each.rows) > _ROWS:
            yield Text(text=view.t("{count} more rows in the run's folder", count=len(each.rows) - _ROWS), small=True)
    yield from (_histogram(view, each) for each in evaluation.distributions if allowance.take(20 * len(each.counts)))
    if evaluation.examples:
        yield from _examples(view, shown, allowance)
    for name in evaluation.images:
        yield from _image(shown.folder, name, allowance)


def _series(view: View, experiment: str, members: list[Shown], allowance: Allowance) -> list[Block]:
    """Return each series as a chart with one line a seed."""
    names: dict[str, list[tuple[RunRecord, Series]]] = {}
    for shown in members:
        for each in shown.evaluation.series:
            if len(each.x) == len(each.y):
                names.setdefault(each.name, []).append((shown.record, each))
    charts: list[Block] = []
    for name, found in names.items():
        if not allowance.take(25 * sum(min(len(each.x), _POINTS) for _, each in found)):
            break
        lines = tuple(
            Line(arm=experiment, seed=record.seed, run=record.name, points=pairs(each.x, each.y, _POINTS))
            for record, each in found
        )
        first = found[0][1]
        charts.append(Chart(title=name, metric=name, lines=lines, x_label=first.x_label, y_label=first.y_label or name))
    return charts


def _histogram(view: View, each: Distribution) -> Histogram:
    return Histogram(
        title=each.name, edges=each.edges, counts=each.counts, x_label=each.label or each.name, y_label=view.t("count")
    )


def _examples(view: View, shown: Shown, allowance: Allowance) -> Iterator[Block]:
    t = view.t
    rows: list[tuple[Cell | str, ...]] = []
    images: list[Block] = []
    for example in shown.evaluation.examples[:_EXAMPLES]:
        texts = [_cut(text) for text in (example.input, example.output, example.target)]
        if not allowance.take(sum(map(len, texts)) + 100):
            break
        rows.append((example.id, *(Cell(text=text, foreign=True) for text in texts), _scores(view, example)))
        images += [block for name in example.images for block in _image(shown.folder, name, allowance)]
    if rows:
        columns = (t("example"), t("input"), t("output"), t("wanted"), t("scores"))
        title = t("Examples of {name}", name=shown.evaluation.name)
        yield Folded(title=title, blocks=(table(columns, rows), *images))


def _scores(view: View, example: Example) -> str:
    return ", ".join(f"{name} {view.t.figure(value)}" for name, value in example.scores.items())


def _image(folder: Path, name: str, allowance: Allowance) -> Iterator[Block]:
    """Yield a small picture of the run's own folder, known by its first bytes; nothing else is carried."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return
    length = path.stat().st_size
    if length > min(allowance.image, allowance.images):
        return
    data = path.read_bytes()
    kind = next((kind for head, kind in _KINDS.items() if data.startswith(head)), "")
    if kind:
        allowance.images -= length
        yield Image(name=name, kind=kind, data=data)


def _text(view: View, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return view.t.figure(value)
    return _cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"
