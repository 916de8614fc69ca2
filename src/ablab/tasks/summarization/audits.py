"""What makes a summarisation study unsound, beyond the general checks; no torch.

Each of these was found in a real experiment log: adapters beside matrices that do not exist, tokens that never
trained, fp16 on T5, an accelerator that fell back in silence, a ROUGE that saw only the letters of English.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from ablab.audit.findings import finding, listed, not_checked, place, shown
from ablab.audit.training import setting_of
from ablab.audit.view import AuditView, stage_place
from ablab.contract.failure import AblabError
from ablab.contract.finding import Finding
from ablab.contract.registry import is_file_reference, nearest
from ablab.contract.training import Trainability
from ablab.data.dialogues import Dialogue, Fields, ascii_share, divide, overlaps, read_dialogues
from ablab.study.schema import Experiment, Stage
from ablab.tasks.summarization.config import Baseline, DecodeSweep, Evaluate
from ablab.tasks.summarization.families import family_of, positions_of, targets_of
from ablab.tasks.summarization.problems import accelerator_problem
from ablab.tasks.summarization.sections import Data, Input, Model

Section = TypeVar("Section", Model, Data, Input)

#: Words for groups of matrices, which every architecture has.
_GROUPS = frozenset({"attention", "feedforward", "lm_head"})
#: Share of letters below which a tokenizer of ROUGE drops most of a text.
KEPT = 0.5
#: Largest file that a check reads by itself, in bytes.
_READ = 32_000_000


def model_of(experiment: Experiment) -> Model | None:
    """Return the model section of the last stage that has one."""
    return _section(experiment, "model", Model)


def data_of(experiment: Experiment) -> Data | None:
    """Return the data section of the prepare stage."""
    return _section(experiment, "data", Data)


def input_of(experiment: Experiment) -> Input | None:
    """Return the input section of the last stage that has one."""
    return _section(experiment, "input", Input)


def _section(experiment: Experiment, name: str, kind: type[Section]) -> Section | None:
    sections = (stage.sections.get(name) for stage in reversed(experiment.stages))
    return next((section for section in sections if isinstance(section, kind)), None)


def _trained(view: AuditView) -> Iterator[tuple[Experiment, Stage, Model]]:
    """Yield every stage that trains a model."""
    for experiment in view.study.experiments.values():
        for stage in experiment.stages:
            model = stage.sections.get("model")
            if stage.kind in ("train", "pretrain") and isinstance(model, Model):
                yield experiment, stage, model


def accelerators(view: AuditView) -> Iterable[Finding]:
    """Errors: an accelerator that the architecture cannot use, or that is not part of the training step."""
    for experiment in view.study.experiments.values():
        model = model_of(experiment)
        problem = None if model is None else accelerator_problem(model)
        if model is not None and problem is not None:
            yield finding(
                view,
                "accelerator-cannot-apply",
                "error",
                f"experiments.{experiment.name}.model.accelerator",
                f"{experiment.name} asks for the accelerator {model.accelerator}, which cannot apply to "
                f"{model.checkpoint.label}: {problem.partition(';')[0]}",
                remedy=problem.partition("; ")[2],
                evidence={"accelerator": model.accelerator, "kind": model.kind},
                subjects=(experiment.name,),
            )


def attention_fits(view: AuditView) -> Iterable[Finding]:
    """Errors: flash attention where the architecture has none."""
    for experiment, stage, model in _trained(view):
        family = family_of(model.checkpoint, study=view.study.path)
        if family is not None and not family.flash and model.checkpoint.attention == "flash_attention_2":
            yield finding(
                view,
                "attention-cannot-apply",
                "error",
                stage_place(experiment, stage),
                f"{experiment.name} asks for flash attention, which {family.name} does not have: its attention adds a "
                "bias by relative position",
                remedy="set model.checkpoint.attention to sdpa or auto",
                subjects=(experiment.name,),
            )


def precision_fits(view: AuditView) -> Iterable[Finding]:
    """Errors: fp16 on an architecture whose activations exceed it; notes: `auto`, which some GPUs read as fp16."""
    unsure: list[str] = []
    for experiment, stage, model in _trained(view):
        family = family_of(model.checkpoint, study=view.study.path)
        if family is None or family.fp16:
            continue
        precision = setting_of(stage.parameters, "precision")
        if precision == "fp16":
            yield finding(
                view,
                "precision-overflows",
                "error",
                f"{stage_place(experiment, stage)}.precision",
                f"{experiment.name} trains {family.name} in fp16, whose range ends at 65,504: activations of its "
                "feed-forward layers reach 66,246, and the loss turns to NaN",
                remedy="set precision to bf16 or fp32",
                evidence={"architecture": family.name, "precision": precision},
                subjects=(experiment.name,),
            )
        elif precision == "auto":
            unsure.append(experiment.name)
    if unsure:
        names = list(dict.fromkeys(unsure))
        yield finding(
            view,
            "precision-auto-on-t5",
            "note",
            "experiments",
            f"{listed(names)} leave the precision of a T5 to the machine: a GPU without bf16 would mean fp16, which is "
            "refused there",
            remedy="set precision to bf16 or fp32",
            subjects=tuple(names),
        )


def adapter_targets(view: AuditView) -> Iterable[Finding]:
    """Errors: adapters beside a matrix that the architecture does not have; adapter libraries pass over such names."""
    for experiment, stage, model in _trained(view):
        known = targets_of(model.checkpoint, study=view.study.path)
        parts: dict[str, Trainability] = setting_of(stage.parameters, "parts") or {}
        for name, part in parts.items():
            missing = [
                target
                for target in part.targets or ()
                if known is not None and target not in _GROUPS and target.rpartition(".")[2] not in known
            ]
            for target in missing:
                near = nearest(target, sorted(known or ()))
                yield finding(
                    view,
                    "adapter-target-missing",
                    "error",
                    f"{stage_place(experiment, stage)}.parts.{name}.targets",
                    f"{experiment.name} puts adapters beside {target!r}, and {model.checkpoint.label} has no matrix of "
                    f"that name; it has {', '.join(sorted(known or ()))}",
                    remedy=(f"write {near}" if near else "name matrices it has")
                    + ", or the words attention, feedforward",
                    evidence={"target": target, "known": sorted(known or ())},
                    subjects=(experiment.name,),
                )


def new_tokens_train(view: AuditView) -> Iterable[Finding]:
    """Errors: tokens that are new to the checkpoint whose rows stay as they were drawn, as asked or as measured."""
    for experiment, stage, model in _trained(view):
        parts: dict[str, Trainability] = setting_of(stage.parameters, "parts") or {}
        data = data_of(experiment)
        frozen = any(part.mode != "full" for part in parts.values())
        asked = model.new_tokens == "frozen" and frozen and data is not None and bool(data.tags)
        new, trained = view.fact(experiment.name, "tokens.new"), view.fact(experiment.name, "tokens.new_trained")
        measured = new is not None and trained is not None and new.value > trained.value
        if stage.kind == "train" and (measured or (asked and (new is None or new.value))):
            count = new.value if new is not None else len(data.tags) if data is not None else 0
            yield finding(
                view,
                "special-tokens-untrained",
                "error",
                stage_place(experiment, stage),
                f"{experiment.name} adds {'up to ' if new is None else ''}{shown(count)} tokens to a model whose "
                "embedding is frozen: their rows stay as they were drawn",
                remedy="set model.new_tokens to trained, or train the whole model",
                evidence={"tokens": count, "new_tokens": model.new_tokens},
                subjects=(experiment.name,),
            )


def positions_suffice(view: AuditView) -> Iterable[Finding]:
    """Errors: lengths beyond the positions a model has learned; not checked where no configuration is within reach."""
    for experiment in view.study.experiments.values():
        model, given = model_of(experiment), input_of(experiment)
        if model is None or given is None:
            continue
        family = family_of(model.checkpoint, study=view.study.path)
        known = view.fact(experiment.name, "positions.limit")
        limit = known.value if known is not None else positions_of(model.checkpoint, study=view.study.path)
        if limit is None:
            if family is None and known is None and view.fact(experiment.name, "architecture") is None:
                yield not_checked(
                    view,
                    "positions-exceeded",
                    f"experiments.{experiment.name}.input",
                    f"how many positions {model.checkpoint.label} has is not known before it is loaded",
                    subjects=(experiment.name,),
                )
            continue
        wanted = given.encoder_length if model.kind == "seq2seq" else given.encoder_length + given.decoder_length
        for name, length in (("encoder_length", wanted), ("decoder_length", given.decoder_length)):
            if length > limit:
                yield finding(
                    view,
                    "positions-exceeded",
                    "error",
                    f"experiments.{experiment.name}.input.{name}",
                    f"{experiment.name} wants {shown(length)} tokens at once, and {model.checkpoint.label} has "
                    f"{shown(limit)} positions",
                    remedy=f"set {name} to {limit} or less, or take a model with relative positions (T5, mT5)",
                    evidence={"length": length, "positions": limit},
                    subjects=(experiment.name,),
                )


def outputs_fit(view: AuditView) -> Iterable[Finding]:
    """Warnings: generation that may stop before the summaries it learned would."""
    for experiment in view.study.experiments.values():
        given = input_of(experiment)
        for stage in experiment.stages:
            most = setting_of(stage.parameters, "decoding.max_new_tokens")
            if given is None or most is None or stage.kind not in ("evaluate", "decode-sweep"):
                continue
            if most < given.decoder_length:
                yield finding(
                    view,
                    "outputs-cut-short",
                    "warning",
                    f"{stage_place(experiment, stage)}.decoding.max_new_tokens",
                    f"{experiment.name} learns summaries of up to {given.decoder_length} tokens and may write {most}",
                    remedy="set max_new_tokens to the decoder length",
                    evidence={"decoder_length": given.decoder_length, "max_new_tokens": most},
                    subjects=(experiment.name,),
                )


def decoding_differs(view: AuditView) -> Iterable[Finding]:
    """Warnings: arms of a comparison that decode differently, where decoding is not the factor under test."""
    for index, comparison in view.comparisons():
        if any(_is_of_decoding(path, view.arms(comparison)) for path in comparison.factor):
            continue
        used: dict[str, list[str]] = {}
        for arm in view.arms(comparison):
            for stage in arm.stages:
                if isinstance(stage.parameters, Evaluate):
                    used.setdefault(_decoding(arm, stage), []).append(arm.name)
        if len(used) > 1:
            told = "; ".join(f"{text}: {listed(names)}" for text, names in used.items())
            yield finding(
                view,
                "decoding-differs",
                "warning",
                place(index, comparison),
                f"arms are decoded differently ({told}): beams and penalties move ROUGE by themselves",
                remedy="decode all arms alike, or sweep the same decodings for each",
                evidence=used,
                subjects=tuple(name for names in used.values() for name in names),
                comparison=comparison,
            )


def _is_of_decoding(path: str, arms: Iterable[Experiment]) -> bool:
    """Return whether a factor is about decoding: settings of one, or the sweep that chooses one."""
    if "decoding" in path:
        return True
    sweeps = {stage.name for arm in arms for stage in arm.stages if isinstance(stage.parameters, DecodeSweep)}
    return any(path == f"pipeline.{name}" or path.startswith(f"pipeline.{name}.") for name in sweeps)


def _decoding(arm: Experiment, stage: Stage) -> str:
    sweeps = [each for each in arm.stages if isinstance(each.parameters, DecodeSweep)]
    if any(need.stage == each.name for each in sweeps for need in stage.needs):
        return "swept"
    decoding = stage.parameters.decoding.effective
    return f"{decoding.beams} beams, penalty {shown(decoding.length_penalty)}, up to {decoding.max_new_tokens} tokens"


def schedule_total(view: AuditView) -> Iterable[Finding]:
    """Errors: a schedule made for other steps than the run takes (samples x epochs, say: the rate hardly decays)."""
    for experiment, stage, _ in _trained(view):
        total = setting_of(stage.parameters, "schedule.steps")
        if total is None:
            continue
        steps = _steps(view, experiment, stage)
        if steps is None:
            yield not_checked(
                view,
                "schedule-total-differs",
                f"{stage_place(experiment, stage)}.schedule.steps",
                f"how many steps {experiment.name} takes in its epochs is not known before its data is prepared",
                subjects=(experiment.name,),
                remedy="run the prepare stage",
            )
        elif steps != total:
            yield finding(
                view,
                "schedule-total-differs",
                "error",
                f"{stage_place(experiment, stage)}.schedule.steps",
                f"{experiment.name} takes {shown(steps)} steps, and its schedule is made for {shown(total)}: the rate "
                + ("hardly decays" if total > steps else "ends early"),
                remedy="leave schedule.steps out: the loop counts the steps itself",
                evidence={"steps": steps, "schedule.steps": total},
                subjects=(experiment.name,),
            )


def _steps(view: AuditView, experiment: Experiment, stage: Stage) -> int | None:
    """Return the optimiser steps of a stage: as the study says, as a run counted, or from the prepared dialogues."""
    steps, epochs = setting_of(stage.parameters, "steps"), setting_of(stage.parameters, "epochs")
    if steps is not None:
        return int(steps)
    planned = view.fact(experiment.name, "steps.planned")
    if planned is not None and stage.kind == "train":
        return int(planned.value)
    rows = _train_rows(view, experiment)
    if rows is None or epochs is None:
        return None
    return max(1, int(epochs * rows / stage.parameters.batch + 1e-9))


def _train_rows(view: AuditView, experiment: Experiment) -> int | None:
    """Return the dialogues to train on: as prepared, or as the files say before that; None where neither tells."""
    known, data = view.fact(experiment.name, "dialogues.train"), data_of(experiment)
    if known is not None or data is None:
        return None if known is None else int(known.value)
    as_they_are = data.overlap == "keep" and data.max_dialogues is None and not data.pretraining_topics
    rows = _derived(data, view.study.path, "train_rows") if as_they_are else None
    return None if rows is None else int(rows)


def overlapping(view: AuditView) -> Iterable[Finding]:
    """Errors: dialogues of train that validation or test hold too, as prepared or as the files say."""
    told: set[tuple[Any, ...]] = set()
    for experiment in view.study.experiments.values():
        data = data_of(experiment)
        if data is None or data.overlap == "drop":
            continue
        known = view.fact(experiment.name, "overlaps")
        found = known.value if known is not None else _derived(data, view.study.path, "overlaps")
        if found is None or (key := (data, tuple(sorted(found.items())))) in told:
            continue
        told.add(key)
        leaks = {name: count for name, count in found.items() if name != "train.pretraining"}
        if leaks:
            text = ", ".join(f"{shown(count)} in {name.replace('.', ' and ')}" for name, count in leaks.items())
            with_train = any(name.startswith("train.") for name in leaks)
            yield finding(
                view,
                "dialogues-overlap",
                "error" if with_train else "warning",
                f"experiments.{experiment.name}.data",
                f"the same dialogues stand in several splits: {text}; scores of what was trained on are memory",
                remedy="set data.overlap to drop, or mend the files",
                evidence=leaks,
                subjects=(experiment.name,),
            )


def tokenizer_keeps_text(view: AuditView) -> Iterable[Finding]:
    """Errors: a ROUGE tokenizer that drops most letters of the references, by name or as measured."""
    for experiment in view.study.experiments.values():
        for stage in experiment.stages:
            if not isinstance(stage.parameters, Evaluate | DecodeSweep | Baseline):
                continue
            name = stage.parameters.rouge.tokenizer
            kept = _kept(view, experiment, name)
            if kept is not None and kept < KEPT:
                yield finding(
                    view,
                    "rouge-tokenizer-drops-text",
                    "error",
                    f"{stage_place(experiment, stage)}.rouge.tokenizer",
                    f"the tokenizer {name} keeps {kept:.0%} of the letters of {experiment.name}'s references: what is "
                    "left (the tags, mostly) decides ROUGE",
                    remedy="score Korean with korean, other languages with words or characters",
                    evidence={"tokenizer": name, "kept": kept},
                    subjects=(experiment.name,),
                )


def _kept(view: AuditView, experiment: Experiment, name: str) -> float | None:
    measured = view.fact(experiment.name, "rouge.kept")
    used = view.fact(experiment.name, "rouge.tokenizer")
    if measured is not None and used is not None and used.value == name:
        return float(measured.value)
    if name != "ascii" or is_file_reference(name):
        return None
    fact = view.fact(experiment.name, "letters.ascii_share")
    data = data_of(experiment)
    share = fact.value if fact is not None else None if data is None else _derived(data, view.study.path, "ascii_share")
    return None if share is None else float(share)


def tokenizer_unknown(view: AuditView) -> Iterable[Finding]:
    """Errors: a ROUGE tokenizer of a name there is none of."""
    known = ("korean", "words", "characters", "ascii")
    for experiment in view.study.experiments.values():
        for stage in experiment.stages:
            if not isinstance(stage.parameters, Evaluate | DecodeSweep | Baseline):
                continue
            for name in (stage.parameters.rouge.tokenizer, *stage.parameters.rouge.also):
                if name not in known and not is_file_reference(name):
                    near = nearest(name, known)
                    yield finding(
                        view,
                        "rouge-tokenizer-unknown",
                        "error",
                        f"{stage_place(experiment, stage)}.rouge",
                        f"there is no ROUGE tokenizer {name!r}; there are {', '.join(known)}, or file.py:Name",
                        remedy=f"write {near}" if near else "name one of them",
                        subjects=(experiment.name,),
                    )


def _derived(data: Data, study: str, name: str) -> Any:
    """Return what local files of a moderate size say before anything is prepared; None for others."""
    if data.source != "files":
        return None
    folder = Path(study).parent if study else Path()
    paths = [folder / Path(file).expanduser() for file in (*data.files, *data.validation_files, *data.test_files)]
    try:
        if sum(path.stat().st_size for path in paths) > _READ:
            return None
        stamps = tuple((str(path), path.stat().st_mtime_ns) for path in paths)
        return _read(data, str(folder), stamps)[name]
    except (OSError, AblabError):
        # What is wrong with the files is said where they are read, with file and row.
        return None


@cache
def _read(data: Data, folder: str, stamps: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """Return overlaps, rows to train on and the share of ASCII letters of local files, read once for each state."""
    fields = Fields(**data.fields.model_dump())
    splits: dict[str, list[Dialogue]] = {}
    for name, files in (("train", data.files), ("val", data.validation_files), ("test", data.test_files)):
        if files:
            paths = [Path(folder, Path(file).expanduser()) for file in files]
            splits[name] = [row for path in paths for row in read_dialogues(path, fields=fields)]
    texts = [text for rows in splits.values() for row in rows for text in row.summaries]
    held = {
        "validation": 0.0 if splits.get("val") else data.splits.validation,
        "test": 0.0 if splits.get("test") else data.splits.test,
    }
    train = divide(splits["train"], **held, seed=data.splits.seed)["train"] if any(held.values()) else splits["train"]
    return {
        "train_rows": len(train),
        "overlaps": {name: len(pairs) for name, pairs in overlaps(splits).items()},
        "ascii_share": ascii_share(texts),
    }


AUDITS = (
    accelerators,
    attention_fits,
    precision_fits,
    adapter_targets,
    new_tokens_train,
    positions_suffice,
    outputs_fit,
    schedule_total,
    decoding_differs,
    overlapping,
    tokenizer_keeps_text,
    tokenizer_unknown,
)
