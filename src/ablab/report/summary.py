"""A study on one page for programs and for `cat`: `summary.json` and `summary.txt` beside the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ablab.contract.units import duration
from ablab.report.sections import next_steps
from ablab.report.sections.results import heading, mean_text, telling_metrics
from ablab.report.verdicts import verdict_lines

if TYPE_CHECKING:
    from ablab.report.view import View

FORMAT = 1


def as_json(view: View) -> dict[str, Any]:
    """Return status, verdicts, metrics of every arm by seed, and next steps as JSON values."""
    return {
        "format": FORMAT,
        "study": view.study.name,
        "profile": view.study.profile,
        "question": view.study.question,
        "written": view.written,
        "runs": dict(view.counts),
        "verdicts": [verdict.as_dict() for verdict in view.verdicts],
        "experiments": [_experiment(view, name) for name in view.study.experiments],
        "next": list(next_steps.steps(view)),
    }


def _experiment(view: View, name: str) -> dict[str, Any]:
    experiment = view.study.experiments[name]
    records = view.own(name)
    arms = [arm for arm in view.results.arms if arm.experiment == name]
    metrics = list(dict.fromkeys(metric for arm in arms for metric in arm.values))
    return {
        "name": name,
        "label": experiment.label,
        "status": view.status(name),
        "seeds": list(view.results.seeds(name)),
        "seconds": sum(record.wall or 0.0 for record in records),
        "devices": list(dict.fromkeys(record.device for record in records if record.device)),
        "metrics": {metric: _values(view, name, metric) for metric in metrics},
        "references": {
            metric: [
                {"value": each.value, "band": each.band, "source": each.source, "note": each.note} for each in found
            ]
            for metric, found in view.references.get(name, {}).items()
        },
    }


def _values(view: View, name: str, metric: str) -> dict[str, Any]:
    """Return the last value by seed, complete ones only, with the run of each."""
    found = view.results.values(name, metric)
    values = {seed: view.results.value(name, seed, metric) for seed in found}
    return {
        "values": {str(seed): number for seed, number in found.items()},
        "runs": {
            str(seed): view.results.runs[value.key].name
            for seed, value in values.items()
            if value is not None and value.key in view.results.runs
        },
    }


def as_text(view: View) -> str:
    """Return verdicts, then one line an experiment: status, time, compared metrics."""
    lines = [f"{view.study.name} ({view.study.profile})", *verdict_lines(view.study, view.verdicts), ""]
    metrics = telling_metrics(view, most=3)
    width = max((len(name) for name in view.study.experiments), default=0)
    for name in view.study.experiments:
        seconds = sum(record.wall or 0.0 for record in view.own(name))
        shown = [
            f"{heading(view, metric, at)} {text} (n = {n})"
            for metric, at in metrics
            for text, n, _ in [mean_text(view, name, metric, at)]
            if n
        ]
        lines.append(
            f"{name:<{width}}  {view.status(name):<8}  {duration(seconds or None):>7}  {'; '.join(shown)}".rstrip()
        )
    return "\n".join(lines) + "\n"
