"""Shares of one or two sets as pictures; matplotlib only here, and only when they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ablab.data.tables.describe import histogram, shares
from ablab.data.tables.tally import Tally

#: Bars of question words; the others are added up.
_WORDS = 14


def draw(tallies: Mapping[str, Tally], folder: Path) -> list[Path]:
    """Draw candidates, question words and lengths of one or two sets beside each other; return the files.

    Nothing is drawn where matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        return []
    matplotlib.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    if all(tally.roles.candidates for tally in tallies.values()):
        buckets = {name: shares(tally.buckets(), tally.rows) for name, tally in tallies.items()}
        found.append(_bars(buckets, folder / "candidates.png", x="candidate passages", y="share of rows"))
    if all(tally.words for tally in tallies.values()):
        words = {name: shares(_frequent(tally), tally.rows) for name, tally in tallies.items()}
        found.append(_bars(words, folder / "question-words.png", x="first question word", y="share of rows"))
    for what in sorted(set.intersection(*(set(tally.lengths) for tally in tallies.values()))):
        name = what.replace(", ", "-").replace(" ", "-")
        found.append(_lines(tallies, what, folder / f"{name}.png"))
    return found


def _frequent(tally: Tally) -> dict[str, int]:
    frequent = dict(list(tally.ranked_words().items())[:_WORDS])
    rest = tally.rows - sum(frequent.values())
    return {**frequent, "others": rest} if rest else frequent


def _bars(values: Mapping[str, Mapping[str, float]], path: Path, *, x: str, y: str) -> Path:
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(label for of in values.values() for label in of))
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(values)
    for i, (name, of) in enumerate(values.items()):
        places = [place + (i - (len(values) - 1) / 2) * width for place in range(len(labels))]
        axes.bar(places, [of.get(label, 0.0) for label in labels], width, label=name)
    axes.set_xticks(range(len(labels)), labels, rotation=45 if len(labels) > 8 else 0)
    return _finish(figure, axes, path, x=x, y=y, legend=len(values) > 1)


def _lines(tallies: Mapping[str, Tally], what: str, path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, tally in tallies.items():
        found = histogram(tally.lengths[what], name=what)
        whole = max(1, sum(found.counts))
        axes.stairs([count / whole for count in found.counts], list(found.edges), label=name)
    return _finish(figure, axes, path, x=what, y="share", legend=len(tallies) > 1)


def _finish(figure: object, axes: object, path: Path, *, x: str, y: str, legend: bool) -> Path:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure) and isinstance(axes, Axes)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if legend:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    return path


def names_of(paths: Sequence[Path], folder: Path) -> tuple[str, ...]:
    """Return pictures relative to a run folder."""
    return tuple(str(path.relative_to(folder)) for path in paths)
