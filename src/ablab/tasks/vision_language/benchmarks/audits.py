"""What makes an evaluation on benchmarks unsound, as the study's text tells; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ablab.audit.findings import finding
from ablab.audit.view import AuditView, stage_place
from ablab.contract.finding import Finding
from ablab.tasks.vision_language.benchmarks.catalogue import ENTRIES, named_in
from ablab.tasks.vision_language.benchmarks.config import BenchmarkSettings, titles


def no_train_split(view: AuditView) -> Iterable[Finding]:
    """Errors: a model trains on data that bears the name of a benchmark which has no train split."""
    seen: set[tuple[str, str]] = set()
    for arm in view.study.experiments.values():
        data = next((stage.sections["data"] for stage in arm.stages if "data" in stage.sections), None)
        sets = getattr(data, "sets", None) or {}
        mixtures = {name for stage in arm.stages for name in getattr(stage.parameters, "mixture", None) or ()}
        for name, given in sets.items():
            bearing = [text for text in (name, *getattr(given, "files", ())) if named_in(text) is not None]
            key = named_in(bearing[0]) if bearing else None
            if key is None or ENTRIES[key].train or name not in mixtures or (name, key) in seen:
                continue
            seen.add((name, key))
            yield finding(
                view,
                "benchmark-in-training",
                "error",
                f"experiments.{arm.name}.data.sets.{name}",
                f"{arm.name} trains on {bearing[0]}, which bears the name of {ENTRIES[key].title}: that benchmark has "
                "no train split, so its questions would be trained on and then asked",
                remedy="leave the set out, or name it after what it is",
                evidence={"set": name, "benchmark": key},
                subjects=(arm.name,),
            )


def judge_missing(view: AuditView) -> Iterable[Finding]:
    """Warnings: judged benchmarks are asked without a judge, so that their numbers will be missing.

    Errors where a comparison or gate goes by a mean over them, which will be missing too.
    """
    seen: set[tuple[str, ...]] = set()
    for arm in view.study.experiments.values():
        for stage in arm.stages:
            settings = stage.parameters
            if not isinstance(settings, BenchmarkSettings) or settings.judge is not None:
                continue
            named = {key: source.benchmark or key for key, source in settings.benchmarks.items()}
            judged = tuple(key for key, name in named.items() if name in ENTRIES and ENTRIES[name].judged)
            if not judged or judged in seen:
                continue
            seen.add(judged)
            means = {f"average/{part}" for key in judged for part in (*ENTRIES[named[key]].averages, "overall")}
            lost = sorted(means & set(_judging(view)))
            yield finding(
                view,
                "judge-missing",
                "error" if lost else "warning",
                f"{stage_place(arm, stage)}.judge",
                f"{', '.join(titles(settings)[key] for key in judged)}: a judge marks the answers, and {stage.name} of "
                f"{arm.name} names none; the answers are kept, the numbers will be missing"
                + (f", and {', '.join(lost)} with them, by which this study judges" if lost else ""),
                remedy="name a judge (url, model, token_variable), or leave these benchmarks out",
                evidence={"benchmarks": list(judged)},
                subjects=(arm.name,),
            )


def _judging(view: AuditView) -> Iterator[str]:
    """Yield the metrics that comparisons and gates go by."""
    yield from (comparison.metric for _, comparison in view.comparisons())
    yield from (arm.gate.metric for arm in view.study.experiments.values() if arm.gate is not None)


def benchmarks_differ(view: AuditView) -> Iterable[Finding]:
    """Errors: arms of a comparison by a mean over benchmarks ask different benchmarks, or another part of one."""
    for index, comparison in view.comparisons():
        if not comparison.metric or not comparison.metric.startswith("average/"):
            continue
        arms = view.arms(comparison, controls=True)
        asked = {arm.name: _asked(arm.stages) for arm in arms}
        base = asked[arms[0].name]
        for name, other in asked.items():
            if other == base:
                continue
            differing = sorted({key for key in {*base, *other} if base.get(key) != other.get(key)})
            yield finding(
                view,
                "benchmarks-differ",
                "error",
                f"comparisons[{index}]",
                f"{comparison.metric} is a mean over other benchmarks for {name} than for its baseline "
                f"{comparison.baseline}: {', '.join(differing)} differ",
                remedy="ask the same questions of all arms of a comparison",
                evidence={comparison.baseline: sorted(base), name: sorted(other)},
                subjects=(comparison.baseline, name),
                comparison=comparison,
            )


def _asked(stages: Iterable[object]) -> dict[str, object]:
    """Return what of each benchmark an arm asks."""
    found: dict[str, object] = {}
    for stage in stages:
        settings = getattr(stage, "parameters", None)
        if isinstance(settings, BenchmarkSettings):
            same = {"max_new_tokens": None}
            found |= {key: source.model_copy(update=same) for key, source in settings.benchmarks.items()}
    return found


AUDITS = (no_train_split, judge_missing, benchmarks_differ)
