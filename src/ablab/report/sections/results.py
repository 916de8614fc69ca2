"""Every arm's metrics over its seeds, numbers from elsewhere beside them and never mixed with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablab.report.document import ARROWS, Block, Cell, Section, Text, table, without_empty
from ablab.report.sections.notes import stamped
from ablab.report.wording import metric_name

if TYPE_CHECKING:
    from ablab.analysis.results import At
    from ablab.report.references import Reference
    from ablab.report.view import View

#: Metrics of the table; the rest stands with each experiment.
_MOST = 10
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def section(view: View) -> Section:
    """Return one row an arm: mean and interval of each metric, its reference beside it, notes as footnotes."""
    t = view.t
    metrics = telling_metrics(view)
    notes = _Footnotes(view)
    columns = [t("experiment")]
    for metric, at in metrics:
        columns += [heading(view, metric, at) + notes.of_column(metric), t("reference")]
    rows: list[tuple[Cell | str, ...]] = []
    for name in view.study.experiments:
        cells: list[Cell | str] = [Cell(text=name, link=view.anchor(name))]
        for metric, at in metrics:
            cells.append(_cell(view, notes, name, metric, at))
            cells.append(_reference(view, notes, name, metric))
        if any(cell.text not in ("", "—") for cell in cells[1:] if isinstance(cell, Cell)):
            rows.append(tuple(cells))
    if not rows:
        return Section(id="results", title=t("Results"), blocks=(Text(text=t("Nothing has finished yet.")),))
    whole = table(columns, rows, numeric=range(1, len(columns)), footnotes=notes.texts)
    blocks: list[Block] = [without_empty(whole), *_explanations(view, [metric for metric, _ in metrics])]
    return Section(id="results", title=t("Results beside references"), blocks=tuple(blocks))


def heading(view: View, metric: str, at: At = "last") -> str:
    """Return a metric as a column's head: name, unit, direction, checkpoint."""
    found = view.study.task.metric(metric)
    unit = f" [{found.unit}]" if found.unit else ""
    best = f" ({view.t('best')})" if at == "best" else ""
    return f"{metric}{unit} {ARROWS[found.direction]}{best}"


def telling_metrics(view: View, *, most: int = _MOST) -> list[tuple[str, At]]:
    """Return the metrics comparisons ask for, those references give, then the other ones of validation and tests.

    Of the others, numbers of parts come last: "GQA/kind" beside "GQA", and names of more levels.
    """
    wanted: list[tuple[str, At]] = []
    for item in view.study.comparisons:
        name, best = metric_name(item.metric)
        wanted.append((name, "best" if best else item.at))
        for condition in item.criterion.conditions:
            name, best = metric_name(condition.metric)
            wanted.append((name, "best" if best else item.at))
    known = set(view.results.metrics()) | {name for name, _ in wanted}
    wanted += [(name, "last") for metrics in view.references.values() for name in metrics]
    others = [name for name in view.results.metrics() if not name.startswith("train/")]
    others.sort(key=lambda name: (name.rpartition("/")[0] in known, name.count("/") > 1))
    wanted += [(name, "last") for name in others]
    return [pair for pair in dict.fromkeys(wanted) if pair[0] in known][:most]


def mean_text(view: View, experiment: str, metric: str, at: At = "last") -> tuple[str, int, str]:
    """Return mean and half of the 95 % interval, the number of seeds, and the folders of the runs."""
    from ablab.analysis.intervals import Sample

    t = view.t
    values = view.results.values(experiment, metric, at)
    if not values:
        return "—", 0, ""
    sample = Sample(values=tuple(values.values()))
    interval = sample.interval(0.95) if sample.n > 1 else None
    spread = "" if interval is None else f" ± {t.figure((interval[1] - interval[0]) / 2, digits=2)}"
    found = (view.results.value(experiment, seed, metric) for seed in values)
    keys = dict.fromkeys(value.key for value in found if value is not None)
    runs = " ".join(view.results.runs[key].name for key in keys if key in view.results.runs)
    return f"{t.figure(sample.mean)}{spread}", sample.n, runs


def _cell(view: View, notes: _Footnotes, experiment: str, metric: str, at: At) -> Cell:
    text, n, runs = mean_text(view, experiment, metric, at)
    link = view.anchor(experiment) if n else ""
    return Cell(text=text, note=f"n = {n}" if n else "", run=runs, link=link, marks=notes.of_cell(experiment, metric))


def _reference(view: View, notes: _Footnotes, experiment: str, metric: str) -> Cell:
    """Return the numbers from elsewhere, each with its source as a footnote."""
    found = view.references.get(experiment, {}).get(metric, ())
    values = tuple(view.results.values(experiment, metric).values())
    mean = sum(values) / len(values) if values else None
    return Cell(
        text="; ".join(reference_text(view, reference, mean) for reference in found),
        marks=tuple(dict.fromkeys(notes.of_source(reference.source) for reference in found)),
    )


def reference_text(view: View, reference: Reference, mean: float | None) -> str:
    """Return a number from elsewhere; beside a band, where our mean stands to it."""
    t = view.t
    words = {"below": t("ours below"), "within": t("ours within"), "above": t("ours above")}
    side = None if mean is None else reference.side(mean)
    return reference.text(t.figure) + (f" ({words[side]})" if side else "")


def _explanations(view: View, metrics: list[str]) -> list[Block]:
    t = view.t
    said: list[Block] = [
        Text(
            text=t(
                "Mean ± half of the 95 % interval over n seeds. ↓ lower is better, ↑ higher is better. "
                "References are numbers from elsewhere, shown beside ours and never mixed with them."
            ),
            small=True,
        )
    ]
    if view.study.profile != "full" and view.study.references:
        told = t(
            "References were measured as the profile full states; the profile {profile} differs from it, so that "
            "the two are no comparison.",
            profile=view.study.profile,
        )
        said.append(Text(text=told, small=True))
    defined = {name: view.study.task.metric(name).description for name in dict.fromkeys(metrics)}
    texts = [f"{name}: {description}" for name, description in defined.items() if description]
    if texts:
        said.append(Text(text=t("Definitions. {text}", text="; ".join(texts)), small=True))
    return said


class _Footnotes:
    """Notes on metrics, and sources of references, as footnotes of a table, numbered as they are met."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.texts: list[str] = []

    def of_cell(self, experiment: str, metric: str) -> tuple[int, ...]:
        return tuple(
            self._number(stamped(self._view, note))
            for note in self._view.notes
            if note.experiment == experiment and note.metric and metric_name(note.metric)[0] == metric
        )

    def of_column(self, metric: str) -> str:
        numbers = [
            self._number(stamped(self._view, note))
            for note in self._view.notes
            if not note.experiment and note.metric and metric_name(note.metric)[0] == metric
        ]
        return "".join(f" {str(number).translate(_SUPERSCRIPTS)}" for number in numbers)

    def of_source(self, source: str) -> int:
        return self._number(self._view.t("Reference: {source}", source=source))

    def _number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1
