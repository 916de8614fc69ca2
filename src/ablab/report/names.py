"""Names a person types of a study, checked against what there is: experiments (by name or pattern) and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from ablab.study.schema import Comparison, Study


def experiment_names(study: Study, wanted: Sequence[str] | None) -> list[str]:
    """Return the experiments that names or patterns (GPT-*) mean, in the order of the study; all for None.

    Raises:
        ConfigError: for one that means none, with the nearest.
    """
    if not wanted:
        return list(study.experiments)
    chosen: set[str] = set()
    for pattern in wanted:
        found = [name for name in study.experiments if name == pattern or fnmatchcase(name, pattern)]
        if not found:
            raise ConfigError(unknown("experiment", pattern, study.experiments, of=f"the study {study.name}"))
        chosen.update(found)
    return [name for name in study.experiments if name in chosen]


def comparison_named(study: Study, name: str) -> Comparison:
    """Return a comparison by name; ConfigError with the nearest where there is none."""
    for comparison in study.comparisons:
        if comparison.name == name:
            return comparison
    names = [comparison.name for comparison in study.comparisons]
    raise ConfigError(unknown("comparison", name, names, of=f"the study {study.name}"))


def metric_patterns(study: Study) -> list[str]:
    """Return the metric names and patterns that the study's stages yield; empty where any name may come."""
    found = dict.fromkeys(metric.name for metric in study.task.metrics)
    seen: set[tuple[int, int]] = set()
    for experiment in study.experiments.values():
        for stage in experiment.stages:
            if (id(stage.spec), id(stage.parameters)) in seen:
                continue
            seen.add((id(stage.spec), id(stage.parameters)))
            names = stage.spec.metrics if stage.spec.yields is None else stage.spec.yields(stage.parameters)
            if names is None:
                return []
            found.update(dict.fromkeys(names))
    return list(found)


def is_metric(study: Study, name: str) -> bool:
    """Whether a stage of the study yields a metric of this name, as far as its stages say."""
    patterns = metric_patterns(study)
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def check_metric(study: Study, name: str, *, known: Iterable[str] = ()) -> str:
    """Return a metric's name if the study yields it or `known` holds it.

    Raises:
        ConfigError: where neither does, with the nearest.
    """
    known = list(known)
    if name in known or is_metric(study, name):
        return name
    # "*/perplexity" is near to what was typed when it stands for a name of the same split.
    split = name.partition("/")[0]
    concrete = [pattern.replace("*", split) if "/" in name else pattern for pattern in metric_patterns(study)]
    raise ConfigError(unknown("metric", name, [*known, *concrete], of=f"the study {study.name}"))


def split_metric(text: str) -> tuple[str, Literal["last", "best"] | None]:
    """Split `val/perplexity@best` into its name and which value is meant; None where it does not say.

    Raises:
        ConfigError: for a mark other than @last and @best.
    """
    name, mark, which = text.rpartition("@")
    if not mark:
        return text, None
    if which == "last":
        return name, "last"
    if which == "best":
        return name, "best"
    raise ConfigError(f"metric {text!r}: expected @last or @best after its name")


def unknown(what: str, name: str, valid: Iterable[str], *, of: str) -> str:
    """Return the sentence that says there is no such thing, with the nearest or with what there is."""
    from ablab.study.problems import listed, nearest

    names = list(dict.fromkeys(valid))
    near = nearest(name, names)
    return f"{of} has no {what} {name!r}" + (f"; did you mean {near}?" if near else f"; there are {listed(names)}")
