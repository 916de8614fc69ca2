"""What makes a retrieval study unsound, beyond the general checks; no torch.

`DERIVED` tells facts from the study's own numbers, so that checks can speak before anything has run: the queries of
known subsets, and what is left over of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from ablab.audit.findings import finding, listed, not_checked, place, shown
from ablab.audit.view import AuditView, stage_place
from ablab.contract.finding import Finding, Severity
from ablab.contract.training import Train, Trainability
from ablab.study.schema import Experiment, Stage, Study
from ablab.tasks.retrieval.config import RetrievalTrain
from ablab.tasks.retrieval.sections import M2KR_TASKS, Data, Loss, Model, Taps, Towers

_ARTICLES = {"image": "an", "text": "a"}
#: Extras that bring packages.
_EXTRAS = {"open_clip": "open-clip", "bm25s": "retrieval"}
#: Share of lost tokens from which truncation is worth a note, and beyond which it is worth a warning.
_NOTED, _LOST = 0.0005, 0.05


def section_of(experiment: Experiment, name: str, kind: type[Any]) -> Any:
    """Return a section of the last stage that has it; None where none has."""
    found = (stage.sections.get(name) for stage in reversed(experiment.stages))
    return next((section for section in found if isinstance(section, kind)), None)


def queries_held(_: Study, experiment: Experiment) -> int | None:
    """Return the train queries of a known subset of the hub, where nothing is filtered or divided off."""
    data = section_of(experiment, "data", Data)
    if data is None:
        return None
    known = None
    if data.source == "m2kr" and data.subset is not None and not data.both_sides:
        train, valid = M2KR_TASKS[data.subset][:2]
        known = train if valid or data.validation == 0 else None
    limits = [limit for limit in (known, data.rows) if limit is not None]
    return min(limits, default=None)


DERIVED = {"queries.train": queries_held}


def fact_of(view: AuditView, experiment: Experiment, name: str) -> Any:
    """Return the value of a fact, or None where nothing knows it."""
    found = view.fact(experiment.name, name)
    return None if found is None else found.value


def training(experiment: Experiment, kinds: tuple[str, ...] = ("train",)) -> Iterator[tuple[Stage, Train]]:
    """Yield the training stages of an experiment's own pipeline."""
    for stage in experiment.stages:
        if stage.kind in kinds and isinstance(stage.parameters, Train):
            yield stage, stage.parameters


def split_of(parameters: Train) -> str:
    """Return the split that a stage trains on."""
    return parameters.split if isinstance(parameters, RetrievalTrain) else "train"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a check has to say of one arm; `{arms}` in the message stands for all arms of which the same is true."""

    arm: str
    where: str
    severity: Severity
    message: str
    remedy: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


def told_once(view: AuditView, id: str, said: Iterable[Said]) -> Iterator[Finding]:
    """Yield one finding for all arms of which the same is said, at the place of the first: arms share their data."""
    groups: dict[tuple[str, str], list[Said]] = {}
    for each in said:
        groups.setdefault((each.severity, each.message), []).append(each)
    for same in groups.values():
        arms, first = tuple(dict.fromkeys(each.arm for each in same)), same[0]
        message = first.message.replace("{arms}", listed(list(arms)))
        yield finding(
            view, id, first.severity, first.where, message, remedy=first.remedy, evidence=first.evidence, subjects=arms
        )


def taps_in_range(view: AuditView) -> Iterable[Finding]:
    """Errors: a tapped layer that a tower does not have; known depths only, the others are checked when built."""
    for experiment in view.study.experiments.values():
        model, towers = section_of(experiment, "model", Model), section_of(experiment, "towers", Towers)
        if model is None or towers is None or not isinstance(model.taps, Taps):
            continue
        for tower, taps, depth in zip(
            ("text", "vision"), (model.taps.text, model.taps.vision), towers.depths, strict=True
        ):
            wrong = [tap for tap in taps if depth is not None and tap >= depth]
            if wrong:
                assert depth is not None
                yield finding(
                    view,
                    "tap-out-of-range",
                    "error",
                    f"experiments.{experiment.name}.model.taps",
                    f"{experiment.name} taps layer {listed(list(map(str, wrong)))} of the {tower} tower, which has "
                    f"{depth} layers: valid taps are 0 to {depth - 1}",
                    remedy=f"tap early, middle and late of {depth} layers: {_thirds(depth)}; or taps: thirds",
                    evidence={"taps": list(taps), "layers": depth},
                    subjects=(experiment.name,),
                )


def _thirds(depth: int) -> str:
    return ", ".join(str(round((index + 1) * depth / 3) - 1) for index in range(3))


def frozen_random_parts(view: AuditView) -> Iterable[Finding]:
    """Errors: a part drawn at random that nothing trains, in the arm's own stages or those it starts from.

    The fusion always starts from random numbers, a tower where it comes from a configuration. Adapters beside random
    matrices, and layers above random ones, leave those as they were drawn.
    """
    for experiment in view.study.experiments.values():
        towers, model = section_of(experiment, "towers", Towers), section_of(experiment, "model", Model)
        if towers is None or model is None:
            continue
        for part in _random_parts(towers, model):
            if (frozen := _never_trained(view, experiment, part)) is not None:
                tower = part in ("text", "vision")
                yield finding(
                    view,
                    "frozen-random-part",
                    "error",
                    f"experiments.{experiment.name}.{f'towers.{part}' if tower else 'model'}",
                    f"{f'the {part} tower' if tower else frozen} of {experiment.name} starts from random numbers and "
                    "nothing trains it",
                    remedy="pretrain it (a stage of kind pretrain in needs), load weights by name, or train it"
                    if tower
                    else "train it (train.parts)",
                    subjects=(experiment.name,),
                )


def _random_parts(towers: Towers, model: Model) -> Iterator[str]:
    """Yield the parts that start from random numbers and that the model reads."""
    yield from (tower for tower in ("text", "vision") if towers.random and _seen(model, tower))
    yield from ("fusion",) if model.cells == "shared" else ("query_fusion", "passage_fusion")


def _never_trained(view: AuditView, experiment: Experiment, part: str) -> str | None:
    """Return the part, or one inside it, that no stage trains as a whole; None where all of it trains."""
    left: set[str] | None = None
    for each in view.training(experiment):
        parameters, model = each.stage.parameters, each.stage.sections.get("model")
        if not isinstance(parameters, Train) or (part not in ("text", "vision") and not isinstance(model, Model)):
            continue
        unread = isinstance(model, Model) and part in ("text", "vision") and not _seen(model, part)
        still = {part} if unread else _frozen_in(parameters.parts, part)
        left = still if left is None else _both(left, still)
    return min(left) if left else None


def _frozen_in(parts: Mapping[str, Trainability], part: str) -> set[str]:
    """Return what of a part a stage does not train as a whole: the part, or those inside it that are named."""
    whole = parts[part].mode if part in parts else parts["all"].mode if "all" in parts else "full"
    if whole != "full":
        return {part}
    return {name for name, each in parts.items() if name.startswith(f"{part}.") and each.mode != "full"}


def _both(first: set[str], second: set[str]) -> set[str]:
    """Return what neither of two stages trains: names of the one that lie inside those of the other."""
    inside = {a for a in first for b in second if f"{a}.".startswith(f"{b}.")}
    return inside | {b for b in second for a in first if f"{b}.".startswith(f"{a}.")}


def _seen(model: Model, tower: str) -> bool:
    """Whether the model reads a tower at all."""
    wanted = "text" if tower == "text" else "image"
    return any(side in ("both", wanted) for side in (model.query, model.passage))


def batches_and_positives(view: AuditView) -> Iterable[Finding]:
    """Errors: a batch larger than there are positives. Warnings or notes: repeated ones, by what the loss does then."""
    unknown: list[str] = []
    beyond: list[Said] = []
    repeated: list[Said] = []
    for experiment in view.study.experiments.values():
        for stage, parameters in training(experiment):
            where, split = stage_place(experiment, stage), split_of(parameters)
            distinct = fact_of(view, experiment, f"positives.distinct.{split}")
            if distinct is None:
                unknown.append(experiment.name)
            elif parameters.batch > distinct:
                beyond.append(
                    Said(
                        arm=experiment.name,
                        where=f"{where}.batch",
                        severity="error",
                        message=f"a batch of {parameters.batch} queries, but all {split} queries of {{arms}} have "
                        f"{shown(distinct)} distinct positives: every batch repeats some",
                        remedy=f"take a batch of at most {distinct}",
                        evidence={"batch": parameters.batch, "distinct": distinct},
                    )
                )
            else:
                repeated += _repeated(view, experiment, stage, parameters)
    yield from told_once(view, "batch-exceeds-positives", beyond)
    yield from told_once(view, "repeated-positives", repeated)
    yield from _unknown(view, "repeated-positives", unknown, "distinct positives of the split that is trained on")


def _unknown(view: AuditView, id: str, experiments: list[str], lacking: str) -> Iterator[Finding]:
    """Yield one finding for all experiments of which a fact is not known yet; data are prepared by a run."""
    names = tuple(dict.fromkeys(experiments))
    if names:
        told = f"{lacking}, of {listed(list(names))}"
        yield not_checked(
            view, id, "experiments", told, subjects=names, remedy="run the prepare stages, or check --probe"
        )


def _repeated(view: AuditView, experiment: Experiment, stage: Stage, parameters: Train) -> Iterator[Said]:
    """Yield what repeated positives do to an arm, from the chance that two queries share one."""
    collision = fact_of(view, experiment, f"positives.collision.{split_of(parameters)}")
    loss = stage.sections.get("loss")
    if collision is None or not isinstance(loss, Loss) or getattr(parameters, "sampler", "random") == "distinct":
        return
    pairs = parameters.batch * (parameters.batch - 1) / 2
    expected, share = pairs * collision, 1 - (1 - collision) ** pairs
    if share < 0.01:
        return
    wrong = loss.repeats == "negative"
    consequence = "false negatives" if wrong else "matched by id, so no false negatives"
    yield Said(
        arm=experiment.name,
        where=f"{stage_place(experiment, stage)}.batch",
        severity="warning" if wrong else "note",
        message=f"{share:.0%} of the batches repeat a positive ({expected:.2g} pairs a batch of {parameters.batch}): "
        f"{consequence} ({{arms}})",
        remedy="loss.repeats: positive, or train.sampler: distinct" if wrong else "",
        evidence={"share of batches": share, "pairs a batch": expected},
    )


def one_pair_batch(view: AuditView) -> Iterable[Finding]:
    """Notes and warnings: an epoch's rest of one query, whose loss alone is 0 and whose recall is 1. Errors: batches
    of one, without mined negatives, from which nothing can be learnt."""
    said: list[Said] = []
    for experiment in view.study.experiments.values():
        for stage, parameters in training(experiment):
            if parameters.batch == 1 and not getattr(parameters, "negatives", 0):
                said.append(
                    Said(
                        arm=experiment.name,
                        where=f"{stage_place(experiment, stage)}.batch",
                        severity="error",
                        message="a batch of one query of {arms} has no other passage to be told from: its loss is 0 "
                        "and its recall 1, whatever the model does",
                        remedy="take a larger batch; chunk saves memory",
                    )
                )
            queries = fact_of(view, experiment, f"queries.{split_of(parameters)}")
            if queries is None or queries % parameters.batch != 1 or parameters.batch == 1:
                continue
            quoted = [name for name in _referenced(view, experiment) if name.endswith("r_at_1")]
            said.append(
                Said(
                    arm=experiment.name,
                    where=f"{stage_place(experiment, stage)}.batch",
                    severity="warning" if quoted else "note",
                    message=f"{shown(queries)} queries of {{arms}} leave one after whole batches of "
                    f"{parameters.batch}; a batch of one pair has loss 0 and recall 1. Here it is filled up from the "
                    "next epoch" + (f"; the reference {listed(quoted)} may be that batch's value" if quoted else ""),
                    remedy="do not compare with a last batch's value" if quoted else "",
                    evidence={"queries": queries, "batch": parameters.batch},
                )
            )
    yield from told_once(view, "one-pair-batch", said)


def _referenced(view: AuditView, experiment: Experiment) -> list[str]:
    reference = view.study.references.get(experiment.name)
    return [] if reference is None else list(reference.values)


def truncation(view: AuditView) -> Iterable[Finding]:
    """Warnings: texts longer than the text tower takes, with the share of tokens lost."""
    unknown: list[str] = []
    said: list[Said] = []
    for experiment in view.study.experiments.values():
        if not any(training(experiment)):
            continue
        towers = section_of(experiment, "towers", Towers)
        for role in ("query", "passage"):
            lost = fact_of(view, experiment, f"truncated.{role}.tokens")
            if lost is None:
                unknown.append(experiment.name)
            elif lost >= _NOTED:
                texts = fact_of(view, experiment, f"truncated.{role}.texts") or 0.0
                said.append(
                    Said(
                        arm=experiment.name,
                        where=f"experiments.{experiment.name}.towers.tokens",
                        severity="warning" if lost > _LOST else "note",
                        message=f"{lost:.1%} of the tokens of {role} texts lie beyond the text tower's "
                        f"{towers.tokens if towers else '?'} and are lost; {texts:.0%} of the texts are cut ({{arms}})",
                        remedy="shorten the texts, or take a tower with a longer context",
                        evidence={"tokens lost": lost, "texts cut": texts},
                    )
                )
    yield from told_once(view, "text-truncated", said)
    yield from _unknown(view, "text-truncated", unknown, "tokens of texts beyond the text tower's limit")


def pools(view: AuditView) -> Iterable[Finding]:
    """Errors and warnings: queries that no ranking can answer, and train queries that are asked in the test."""
    unknown: list[str] = []
    outside, overlapping, known = list[Said](), list[Said](), list[Said]()
    for experiment in view.study.experiments.values():
        for stage in experiment.stages:
            if stage.kind not in {"evaluate", "bm25"}:
                continue
            where, split = stage_place(experiment, stage), stage.parameters.split
            missing = fact_of(view, experiment, f"positives.outside_pool.{split}")
            asked = fact_of(view, experiment, f"queries.{split}")
            if missing is None or not asked:
                unknown.append(experiment.name)
                continue
            if missing:
                outside.append(_outside(experiment.name, where, split, missing, asked))
            if both := fact_of(view, experiment, "overlap.test_in_train"):
                overlapping.append(_overlap(experiment.name, where, both))
            if share := fact_of(view, experiment, "overlap.test_positives_in_train"):
                known.append(_known(experiment.name, where, share))
    yield from told_once(view, "positive-outside-pool", outside)
    yield from told_once(view, "train-query-in-test", overlapping)
    yield from told_once(view, "test-positive-in-train", known)
    yield from _unknown(view, "positive-outside-pool", unknown, "which queries have a positive in the pool")


def _outside(arm: str, where: str, split: str, missing: float, asked: float) -> Said:
    return Said(
        arm=arm,
        where=where,
        severity="error" if missing == asked else "warning",
        message=f"{shown(missing)} of {shown(asked)} {split} queries of {{arms}} have no positive in the pool: no hit "
        f"rate can exceed {1 - missing / asked:.3f}",
        remedy="search a pool that holds the positives (data.passages)",
        evidence={"outside": missing, "queries": asked},
    )


def _overlap(arm: str, where: str, both: float) -> Said:
    return Said(
        arm=arm,
        where=where,
        severity="error",
        message=f"{shown(both)} test queries of {{arms}} (question and image) are train queries too",
        remedy="take them out of the train split",
        evidence={"queries": both},
    )


def _known(arm: str, where: str, share: float) -> Said:
    return Said(
        arm=arm,
        where=where,
        severity="note",
        message=f"{share:.0%} of the test queries of {{arms}} are about a passage that train queries are about too: "
        "what is measured there is no generalisation to new things",
        evidence={"share": share},
    )


def score_scales(view: AuditView) -> Iterable[Finding]:
    """Warnings: arms whose scores differ in scale by construction, sums over unlike numbers of vectors."""
    for index, comparison in view.comparisons():
        scales: dict[float, list[str]] = {}
        for arm in view.arms(comparison):
            model, loss = section_of(arm, "model", Model), section_of(arm, "loss", Loss)
            if model is not None and loss is not None:
                vectors = 1 if model.vectors == "mean" or loss.score == "mean" else model.queries
                scales.setdefault(vectors / loss.temperature, []).append(arm.name)
        declared = any(path.startswith("loss") for path in comparison.factor)
        if len(scales) > 1 and not declared:
            told = "; ".join(f"up to {shown(scale)}: {listed(arms)}" for scale, arms in sorted(scales.items()))
            yield finding(
                view,
                "score-scale-differs",
                "warning",
                place(index, comparison),
                f"arms start with scores of different scale ({told}): the comparison also measures softmax temperature",
                remedy="loss.score: mean, and one temperature for all arms",
                evidence={shown(scale): arms for scale, arms in scales.items()},
                subjects=tuple(name for arms in scales.values() for name in arms),
                comparison=comparison,
            )


def empty_sides(view: AuditView) -> Iterable[Finding]:
    """Warnings and notes: passages are seen by their text or image, and none has one; both is then the other alone."""
    said: list[Said] = []
    for experiment in view.study.experiments.values():
        model, passages = section_of(experiment, "model", Model), fact_of(view, experiment, "passages.known")
        if model is None or not passages or not any(training(experiment)):
            continue
        for name, other in (("image", "text"), ("text", "image")):
            if fact_of(view, experiment, f"passages.without_{name}") != passages or model.passage in (other, "none"):
                continue
            alone = model.passage == name
            said.append(
                Said(
                    arm=experiment.name,
                    where=f"experiments.{experiment.name}.model.passage",
                    severity="warning" if alone else "note",
                    message=f"none of the {shown(passages)} passages of {{arms}} has {_ARTICLES[name]} {name}: "
                    + ("that is all that is seen of them, so all are the same" if alone else f"both is {other} alone"),
                    remedy=f"take a source whose passages have {name}s" if alone else "",
                    evidence={"passages": passages},
                )
            )
    yield from told_once(view, "side-is-empty", said)


def packages(view: AuditView) -> Iterable[Finding]:
    """Warnings: arms that need a package of an extra that is not installed; the other arms run without it."""
    said: list[Said] = []
    for experiment in view.study.experiments.values():
        towers = section_of(experiment, "towers", Towers)
        wanted = {
            "open_clip": towers is not None and towers.open_clip is not None,
            "bm25s": any(stage.kind == "bm25" for stage in experiment.stages),
        }
        for package, needed in wanted.items():
            if needed and not experiment.planned and find_spec(package) is None:
                said.append(
                    Said(
                        arm=experiment.name,
                        where=f"experiments.{experiment.name}",
                        severity="warning",
                        message=f"{{arms}} will fail: the package {package} is not installed",
                        remedy=f"pip install 'ablab[{_EXTRAS[package]}]'",
                    )
                )
    yield from told_once(view, "missing-package", said)


AUDITS = (
    packages,
    taps_in_range,
    frozen_random_parts,
    batches_and_positives,
    one_pair_batch,
    truncation,
    pools,
    empty_sides,
    score_scales,
)
