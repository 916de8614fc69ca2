"""What makes a vision-language study unsound, beyond the general checks; no torch.

What the study's own text tells is told before anything runs; what only running tells (labels, truncation, adapters,
losses) comes from the facts of results, rehearsals or probes.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ablab.audit.findings import finding, listed, place, shown
from ablab.audit.training import lineage
from ablab.audit.view import AuditView, stage_place
from ablab.contract.finding import Finding
from ablab.study.differences import covers
from ablab.study.schema import Experiment, Study
from ablab.tasks.vision_language.benchmarks.audits import AUDITS as OF_BENCHMARKS
from ablab.tasks.vision_language.config import Phase
from ablab.tasks.vision_language.sections import Model
from ablab.tasks.vision_language.structure.audits import AUDITS as OF_STRUCTURE
from ablab.tasks.vision_language.structure.audits import DERIVED, At, architecture_of, depth_of, phases

#: Matrices of a layer by architecture, as LoRA names them.
_LLAMA = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
MATRICES: dict[str, frozenset[str]] = {
    **dict.fromkeys(("llama", "qwen2", "stablelm", "gemma", "minicpm", "mistral"), _LLAMA),
    "phi": frozenset({"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"}),
    "internlm2": frozenset({"wqkv", "wo", "w1", "w2", "w3"}),
}
_TYPES = {
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": "llama",
    "stabilityai/stablelm-2-zephyr-1_6b": "stablelm",
    "microsoft/phi-2": "phi",
    "openbmb/MiniCPM-2B-dpo-bf16": "minicpm",
}
_GROUPS = frozenset({"attention", "feedforward"})
#: A loss below this share of its siblings' median is far below.
FAR_BELOW = 0.6
#: Share of the supervised tokens that truncation may take before it is more than a note.
TRUNCATED = 0.01


def unlocks_nothing(view: AuditView) -> Iterable[Finding]:
    """Errors: layers are unlocked that the tower does not run; notes: its last layers get no gradient."""
    unread: dict[tuple[int, int, int], list[At]] = {}
    for at in phases(view.study, planned=True):
        tower = at.phase.parts.get("tower")
        depth = depth_of(view.study, at.arm, at.model, "tower")
        if tower is None or depth is None:
            continue
        layer = at.model.feature_layer
        run = layer if layer >= 0 else depth + 1 + layer
        first = tower.from_layer
        if first is not None and first >= run:
            yield finding(
                view,
                "unlock-matches-nothing",
                "error",
                f"{at.where}.parts.tower.from_layer",
                f"{at.arm.name} trains the tower from layer {first} in {at.stage.name}, but features are read after "
                f"layer {run - 1} of 0 to {depth - 1}: nothing would train",
                remedy=f"give a from_layer below {run}, or read a later feature_layer",
                evidence={"from_layer": first, "layers": depth, "layers run": run},
                subjects=(at.arm.name,),
            )
        elif tower.mode in ("unlocked", "full") and run < depth:
            unread.setdefault((layer, depth - run, depth), []).append(at)
    for (layer, count, depth), found in unread.items():
        names = list(dict.fromkeys(at.arm.name for at in found))
        yield finding(
            view,
            "last-layer-without-gradient",
            "note",
            f"{found[0].where}.parts.tower",
            f"features of layer {layer} leave {count} of the {depth} layers of the tower without gradient, though it "
            f"trains: they stay as they were ({listed(names)})",
            remedy="nothing, unless they were meant to train: then read feature_layer -1",
            evidence={"layers": depth, "without gradient": count},
            subjects=tuple(names),
        )


def adapter_targets(view: AuditView) -> Iterable[Finding]:
    """Errors: adapters for matrices the architecture has not; warnings: only some layers got any."""
    for at in phases(view.study, planned=True):
        llm = at.phase.parts.get("llm")
        if llm is None or not llm.adapts:
            continue
        config = architecture_of(view.study, at.arm, at.model, "llm")
        kind = str(config.get("model_type")) if config is not None else _TYPES.get(at.model.llm.name or "")
        known = MATRICES.get(kind or "")
        absent = [name for name in llm.targets or () if known is not None and name not in known | _GROUPS]
        if absent:
            yield finding(
                view,
                "adapter-target-missing",
                "error",
                f"{at.where}.parts.llm.targets",
                f"{at.arm.name} puts adapters on {listed(absent)}, which {kind} has not; it has "
                f"{listed(sorted(known or ()), 8)}",
                remedy="name matrices of this architecture, or leave targets out",
                evidence={"missing": absent, "known": sorted(known or ())},
                subjects=(at.arm.name,),
            )
        yield from _some_layers(view, at)


def _some_layers(view: AuditView, at: At) -> Iterator[Finding]:
    llm, depth = at.phase.parts["llm"], depth_of(view.study, at.arm, at.model, "llm")
    row = next((row for row in _table(view, at) if row.get("part") == "llm"), None)
    adapted = None if row is None else row.get("adapted")
    spread = depth - (llm.from_layer or 0) if depth is not None else None
    uneven = isinstance(adapted, int) and spread is not None and spread > 0 and adapted % spread != 0
    if llm.from_layer or uneven:
        yield finding(
            view,
            "adapters-on-some-layers",
            "warning",
            f"{at.where}.parts.llm",
            f"only some layers of {at.arm.name}'s language model have adapters"
            + (f" ({adapted} matrices over {spread} layers)" if uneven else f" (from layer {llm.from_layer} on)"),
            remedy="name targets that every layer has, and leave from_layer out, unless that is the question",
            evidence={"adapted": adapted, "layers": depth},
            subjects=(at.arm.name,),
        )


def _table(view: AuditView, at: At) -> list[dict[str, Any]]:
    facts = view.facts(at.arm.name, stage=at.stage.name) or {}
    table = facts.get("parameters.table")
    return [row for row in table if isinstance(row, dict)] if isinstance(table, list | tuple) else []


def labels(view: AuditView) -> Iterable[Finding]:
    """Errors and warnings: samples without any supervised token, or with nothing but such; truncated answers."""
    for at in phases(view.study):
        facts = view.facts(at.arm.name, stage=at.stage.name) or {}
        looked = facts.get("samples.looked")
        if not looked:
            continue
        yield from _unsupervised(view, at, facts, looked)
        lost = facts.get("truncated.answers") or 0.0
        if lost:
            yield finding(
                view,
                "answers-truncated",
                "warning" if lost >= TRUNCATED else "note",
                f"{at.where}",
                f"data.max_length cuts off {lost:.1%} of the supervised tokens of {at.arm.name} in {at.stage.name} "
                f"({facts.get('truncated.samples')} of {looked} samples looked at)",
                remedy="raise data.max_length, or use fewer image tokens",
                evidence={"share": lost, "samples": facts.get("truncated.samples"), "looked at": looked},
                subjects=(at.arm.name,),
            )
        left_out = {name: count for name, count in facts.items() if name.startswith("skipped.") and count}
        if left_out:
            told = ", ".join(f"{count} of {name.partition('.')[2]}" for name, count in left_out.items())
            yield finding(
                view,
                "rows-left-out",
                "note",
                f"{at.where}",
                f"rows were left out as damaged: {told}; skipped.jsonl of the prepared set names each",
                evidence=left_out,
                subjects=(at.arm.name,),
            )


def _unsupervised(view: AuditView, at: At, facts: Mapping[str, Any], looked: int) -> Iterator[Finding]:
    none, everything = facts.get("supervised.none") or 0, facts.get("supervised.all") or 0
    if none:
        yield finding(
            view,
            "labels-all-masked",
            "error" if none == looked else "warning",
            at.where,
            f"{none} of {looked} samples of {at.arm.name} have no supervised token in {at.stage.name}",
            remedy="raise data.max_length, or look at the batch with a template that fits the tokenizer",
            evidence={"samples": none, "looked at": looked, "batch": facts.get("batch.text", "")},
            subjects=(at.arm.name,),
        )
    spoken = facts.get("supervised.user") or 0
    if spoken:
        yield finding(
            view,
            "user-turns-supervised",
            "error" if at.phase.supervise == "answers" else "warning",
            at.where,
            f"{spoken} of {looked} samples of {at.arm.name} have words of the user among the targets of {at.stage.name}"
            + (", as supervise: all asks" if at.phase.supervise == "all" else ""),
            remedy="supervise answers alone, with a template that tells the user's words from the assistant's in every "
            "turn, not only in the first",
            evidence={"samples": spoken, "looked at": looked, "batch": facts.get("batch.text", "")},
            subjects=(at.arm.name,),
        )
    if everything and at.phase.supervise == "answers":
        yield finding(
            view,
            "labels-all-open",
            "error" if everything == looked else "warning",
            at.where,
            f"{everything} of {looked} samples of {at.arm.name} have every token supervised in {at.stage.name}, the "
            "user's words too",
            remedy="use a template that tells the user's words from the assistant's",
            evidence={"samples": everything, "looked at": looked, "batch": facts.get("batch.text", "")},
            subjects=(at.arm.name,),
        )


def seen_in_training(view: AuditView) -> Iterable[Finding]:
    """Errors: pictures of a benchmark that are in the training data; warnings: questions about them, word for word."""
    for arm in view.study.experiments.values():
        facts = view.facts(arm.name) or {}
        for name, count in facts.items():
            if not name.startswith("overlap.") or not count:
                continue
            _, what, benchmark = (*name.split(".", 2), "")[:3]
            pictures = name.startswith("overlap.images.")
            severity: Any = "error" if pictures else "warning"
            yield finding(
                view,
                "evaluation-images-in-training" if pictures else "evaluation-questions-in-training",
                severity,
                f"experiments.{arm.name}",
                f"{count} {what} of {benchmark} are in the training data of {arm.name}, byte for byte"
                if pictures
                else f"{count} questions of {benchmark} are asked in the training of {arm.name} about the same "
                "pictures",
                remedy="take them out of the training set, or do not report this benchmark",
                evidence={name: count},
                subjects=(arm.name,),
            )


def part_rates(view: AuditView) -> Iterable[Finding]:
    """Warnings: a part trains at a rate of its own that the baseline's has not, where the rate is not the factor.

    A rate of the whole stage that differs is told by the general checks.
    """
    for index, comparison in view.comparisons():
        arms = view.arms(comparison, controls=True)
        base = _rates(view.study, arms[0])
        for arm in arms[1:]:
            for (stage, part), rate in _rates(view.study, arm).items():
                other = base.get((stage, part))
                path = f"pipeline.{stage}.parts.{part}.learning_rate"
                if other is None or rate[0] == other[0] or not (rate[1] or other[1]):
                    continue
                if covers(view.study, comparison.factor, path):
                    continue
                yield finding(
                    view,
                    "part-rates-differ",
                    "warning",
                    place(index, comparison, arm.name),
                    f"{arm.name} trains its {part} at {shown(rate[0])} in {stage}, its baseline "
                    f"{comparison.baseline} at {shown(other[0])}",
                    remedy="use one rate a part for all arms, or make the rate the factor",
                    evidence={comparison.baseline: other[0], arm.name: rate[0]},
                    subjects=(comparison.baseline, arm.name),
                    comparison=comparison,
                )


def _rates(study: Study, arm: Experiment) -> dict[tuple[str, str], tuple[float, bool]]:
    """Return the peak rate of each part that trains, and whether it is the part's own, by stage and part."""
    found = {}
    for _, stage in lineage(study, arm):
        if not isinstance(stage.parameters, Phase):
            continue
        for part in ("llm", "tower", "connector"):
            settings = stage.parameters.parts.get(part) or stage.parameters.parts.get("all")
            if settings is None or settings.mode != "frozen":
                own = None if settings is None else settings.learning_rate
                found[stage.name, part] = (own or stage.parameters.optimizer.learning_rate, own is not None)
    return found


def loss_below_siblings(view: AuditView) -> Iterable[Finding]:
    """Warnings: a training loss far below that of the arms beside it, with a batch and what of it is supervised."""
    for index, comparison in view.comparisons():
        losses: dict[str, dict[str, float]] = {}
        for arm in view.arms(comparison):
            for done in view.done(arm):
                value = done.result.metrics.get("train/loss")
                if value is not None and isinstance(done.run.stage.parameters, Phase):
                    losses.setdefault(done.run.stage.name, {}).setdefault(arm.name, value)
        for stage, values in losses.items():
            for name, value in values.items():
                others = [other for arm, other in values.items() if arm != name]
                if len(others) < 2 or value >= FAR_BELOW * statistics.median(others):
                    continue
                facts = view.facts(name, stage=stage) or {}
                yield finding(
                    view,
                    "loss-below-siblings",
                    "warning",
                    place(index, comparison, name),
                    f"the training loss of {name} in {stage} is {shown(value)}, of the arms beside it "
                    f"{shown(statistics.median(others))}: look at what is supervised before believing it",
                    remedy="compare the batch and its supervised tokens with a sibling's (evidence)",
                    evidence={
                        "losses": values,
                        "batch": facts.get("batch.text", ""),
                        "supervised": facts.get("supervised.preview", ""),
                        "supervised share": facts.get("supervised.share"),
                    },
                    subjects=tuple(values),
                    comparison=comparison,
                )


def frozen_random(view: AuditView) -> Iterable[Finding]:
    """Errors: a part that is built random and that no phase trains."""
    for arm in view.study.experiments.values():
        own = [(owner, stage) for owner, stage in lineage(view.study, arm) if isinstance(stage.parameters, Phase)]
        if not own:
            continue
        model = own[-1][1].sections.get("model")
        if not isinstance(model, Model):
            continue
        random = {"connector", *(name for name in ("llm", "tower") if getattr(model, name).config is not None)}
        if model.connector.name == "identity" or model.connector.pretrained is not None:
            random.discard("connector")
        for part in sorted(random):
            modes = [_mode(stage.parameters, part) for _, stage in own]
            taken = any(part in stage.parameters.take for _, stage in own)
            if not taken and all(mode in ("frozen", "lora", "qlora") for mode in modes):
                last = own[-1][1]
                yield finding(
                    view,
                    "frozen-random-part",
                    "error",
                    f"experiments.{arm.name}.pipeline.{last.name}.parts.{part}",
                    f"the {part} of {arm.name} is built random, and no phase trains it ({listed(sorted(set(modes)))})",
                    remedy="load it, take it from a stage that trained it, or train it in full in one phase",
                    evidence={"part": part, "modes": modes},
                    subjects=(arm.name,),
                )


def _mode(phase: Phase, part: str) -> str:
    settings = phase.parts.get(part) or phase.parts.get("all")
    return "full" if settings is None else settings.mode


def template_differs(view: AuditView) -> Iterable[Finding]:
    """Errors: a model is asked in another chat template than the last phase trained it with."""
    for arm in view.study.experiments.values():
        last = next((stage for stage in reversed(arm.stages) if isinstance(stage.parameters, Phase)), None)
        for stage in arm.stages:
            asked = getattr(stage.parameters, "template", None)
            if last is None or stage.kind != "evaluate" or asked == last.parameters.template:
                continue
            yield finding(
                view,
                "template-differs",
                "error",
                f"{stage_place(arm, stage)}.template",
                f"{arm.name} is trained with the template {last.parameters.template} ({last.name}), asked with {asked}",
                remedy="use one template for both",
                evidence={last.name: last.parameters.template, stage.name: asked},
                subjects=(arm.name,),
            )


__all__ = ["AUDITS", "DERIVED"]

AUDITS = (
    unlocks_nothing,
    adapter_targets,
    labels,
    seen_in_training,
    part_rates,
    loss_below_siblings,
    frozen_random,
    template_differs,
    *OF_STRUCTURE,
    *OF_BENCHMARKS,
)
