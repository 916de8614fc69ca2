"""Resolves the experiments of a study: defaults, `like`, own settings, the matrix, then overrides on top of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablab.contract.base import Open
from ablab.contract.kinds import trains
from ablab.contract.task import TaskSpec
from ablab.study.addresses import Addresses
from ablab.study.comparisons import stage_kinds_by_name
from ablab.study.document import NAME, ExperimentEntry, MatrixEntry
from ablab.study.durations import parse_duration
from ablab.study.matrix import expand
from ablab.study.merging import Merger, marked, nested
from ablab.study.overrides import Override, names_experiment, overlay, unknown
from ablab.study.pipeline import Pipelines
from ablab.study.problems import Mark, Problems, listed, nearest, shown
from ablab.study.schema import Experiment
from ablab.study.selects import check_selects
from ablab.study.validation import Validator
from ablab.study.yaml12 import Block, Items

_ENTRY_KEYS = frozenset(ExperimentEntry.model_fields)


@dataclass(slots=True, kw_only=True)
class Draft:
    """An experiment before its stages are made."""

    name: str
    entry: ExperimentEntry | MatrixEntry
    config: Block
    mark: Mark
    label: str
    estimate: float | None
    like: str | None


class Experiments:
    """Resolves all experiments of one study.

    Args:
        task: the task.
        seeds: the study's seeds.
        validator: types blocks, and shares what is equal.
        merger: merges blocks, and shares what is equal.
        problems: where problems are noted.
    """

    def __init__(
        self, task: TaskSpec, *, seeds: tuple[int, ...], validator: Validator, merger: Merger, problems: Problems
    ) -> None:
        self.task = task
        self.pipelines = Pipelines(task, validator=validator, merger=merger, problems=problems)
        self._seeds = seeds
        self._validator = validator
        self._merger = merger
        self._problems = problems
        self._config_keys = frozenset((*task.sections, "pipeline"))
        self._drafts: dict[str, Draft] = {}
        place = Mark(f"task {task.name}", None, "pipeline")
        pipeline = marked({name: dict(raw) for name, raw in task.pipeline.items()}, place)
        self._base = Block({"pipeline": pipeline}, {"pipeline": place})

    def resolve(
        self, document: Block, mark: Mark, *, overrides: Sequence[Override], quick: bool
    ) -> dict[str, Experiment]:
        """Return the experiments by name, in the order of the file, the matrix last."""
        defaults = document.get("defaults")
        if defaults is not None:
            self._base = self._merger.merge(self._base, self._config(defaults, document.marks["defaults"], ()))
        self._explicit(document.get("experiments"), document.marks.get("experiments", mark))
        self._matrix(document.get("matrix"), document.marks.get("matrix", mark))
        if not self._drafts and not len(self._problems):
            self._problems.add(mark, "a study needs at least one experiment, in `experiments:` or by `matrix:`")
        self._override(overrides)
        if quick:
            self._shorten()
        experiments = {draft.name: self._finish(draft) for draft in self._drafts.values()}
        self.pipelines.needs.check_crossing()
        return experiments

    def addresses(self) -> Addresses:
        """Return the paths that the experiments have."""
        named: dict[tuple[str, int], Any] = {}
        for draft in self._drafts.values():
            pipeline = draft.config.get("pipeline")
            if isinstance(pipeline, Block) and ("", id(pipeline)) not in named:
                named["", id(pipeline)] = None
                for stage in self.pipelines.declared(pipeline):
                    named.setdefault((stage.name, id(stage.spec)), (stage.name, stage.spec))
        stages = stage_kinds_by_name(value for value in named.values() if value is not None)
        return Addresses(self.task, stages, own=self._own_keys())

    def _own_keys(self) -> dict[str, list[str]]:
        """Return the keys that experiments have in open sections."""
        sections = [section for section, model in self.task.sections.items() if issubclass(model, Open)]
        drafts = self._drafts.values()
        return {
            section: list(dict.fromkeys(key for draft in drafts for key in draft.config.get(section) or ()))
            for section in sections
        }

    def _config(self, raw: Any, mark: Mark, other: Sequence[str]) -> Block:
        """Return the sections and pipeline of a mapping; keys that are neither these nor `other` are problems."""
        if not isinstance(raw, Block):
            self._problems.add(mark, f"expected a mapping of sections and pipeline, found {shown(raw)}")
            return Block()
        config = Block()
        for key, value in raw.items():
            if key in self._config_keys:
                if value is not None:
                    config[key], config.marks[key] = value, raw.marks[key]
            elif key not in other:
                valid = [*other, *self.task.sections, "pipeline"]
                hint = nearest(key, valid) or Addresses(self.task).nearest(key)
                self._problems.add(raw.marks[key], f"unknown key {key!r}; known here: {listed(valid, limit=30)}", hint)
        return config

    def _explicit(self, raw: Any, mark: Mark) -> None:
        if raw is None:
            return
        if not isinstance(raw, Block):
            self._problems.add(mark, f"expected a mapping of experiments by name, found {shown(raw)}")
            return
        own: dict[str, tuple[ExperimentEntry | None, Block]] = {}
        for name, entry in raw.items():
            own[name] = self._read(name, Block() if entry is None else entry, raw.marks[name])
        configs: dict[str, Block] = {}
        for name, (typed, _) in own.items():
            config = self._inherited(name, own, raw, configs)
            if typed is not None:
                self._add(name, typed, config, raw.marks[name], typed.label)

    def _read(self, name: str, raw: Any, mark: Mark) -> tuple[ExperimentEntry | None, Block]:
        if not re.match(NAME, name):
            self._problems.add(mark, f"{name!r} cannot name an experiment: letters, digits, _ - . + = only")
        config = self._config(raw, mark, tuple(ExperimentEntry.model_fields))
        if not isinstance(raw, Block):
            return None, config
        said = Block(
            {key: value for key, value in raw.items() if key in _ENTRY_KEYS},
            {key: place for key, place in raw.marks.items() if key in _ENTRY_KEYS},
        )
        return self._validator.validate(ExperimentEntry, said, mark), config

    def _inherited(
        self,
        name: str,
        own: Mapping[str, tuple[ExperimentEntry | None, Block]],
        raw: Block,
        configs: dict[str, Block],
    ) -> Block:
        """Return the configuration of an experiment on top of the chain of its `like`."""
        chain: list[str] = []
        while name not in configs and name not in chain:
            chain.append(name)
            entry = own[name][0]
            like = entry.like if entry is not None else None
            if like is None:
                break
            if like not in own:
                message = f"no experiment is called {like!r}; experiments: {listed(own)}"
                self._problems.add(raw[name].marks["like"], message, nearest(like, own))
                break
            if like in chain:
                self._problems.add(raw[name].marks["like"], f"`like` goes in a circle: {' like '.join((*chain, like))}")
                break
            name = like
        config = configs.get(name, self._base)
        for name in reversed(chain):
            config = configs[name] = self._merger.merge(config, own[name][1])
        return config

    def _matrix(self, raw: Any, mark: Mark) -> None:
        if raw is None:
            return
        entries = raw if isinstance(raw, Items) else Items([raw], [mark])
        for entry, place in zip(entries, entries.marks, strict=True):
            typed = self._validator.validate(MatrixEntry, entry, place)
            if typed is None:
                continue
            base = self._base
            if typed.like is not None:
                if typed.like not in self._drafts:
                    message = f"no experiment is called {typed.like!r}; experiments: {listed(self._drafts)}"
                    self._problems.add(entry.marks["like"], message, nearest(typed.like, self._drafts))
                    continue
                base = self._drafts[typed.like].config
            self._expand(typed, entry, base, place)

    def _expand(self, typed: MatrixEntry, raw: Block, base: Block, mark: Mark) -> None:
        pipeline = base.get("pipeline")
        declared = self.pipelines.declared(pipeline) if isinstance(pipeline, Block) else []
        addresses = Addresses(self.task, stage_kinds_by_name((stage.name, stage.spec) for stage in declared))
        made = expand(typed, raw, base, addresses=addresses, merger=self._merger, problems=self._problems, mark=mark)
        estimate = self._estimate(typed.estimate, mark)
        for name, label, config in made:
            self._add(name, typed, config, mark, label, estimate)

    def _add(
        self,
        name: str,
        entry: ExperimentEntry | MatrixEntry,
        config: Block,
        mark: Mark,
        label: str,
        estimate: float | None = None,
    ) -> None:
        if name in self._drafts:
            self._problems.add(
                mark, f"two experiments are called {name!r}; a matrix names each combination differently"
            )
            return
        if estimate is None:
            estimate = self._estimate(entry.estimate, mark)
        self._drafts[name] = Draft(
            name=name, entry=entry, config=config, mark=mark, label=label, estimate=estimate, like=entry.like
        )

    def _estimate(self, written: float | str | None, mark: Mark) -> float | None:
        if written is None:
            return None
        try:
            return parse_duration(written)
        except ValueError as error:
            self._problems.add(mark.child("estimate"), str(error))
            return None

    def _override(self, overrides: Sequence[Override]) -> None:
        for override in overrides:
            if override.keys[0] == "experiments":
                self._override_one(override)
            else:
                self._override_all(override)

    def _override_one(self, override: Override) -> None:
        """Apply `experiments.NAME.path` to an experiment that a matrix made."""
        split = names_experiment(override, self._drafts)
        if split is None or not split[1] or split[1][0] not in self._config_keys:
            near = nearest(override.keys[1], self._drafts) if len(override.keys) > 1 else None
            hint = None if near is None else f"experiments.{near}"
            self._problems.add(override.mark, f"no experiment of this study has {override.path}", hint)
            return
        draft = self._drafts[split[0]]
        draft.config = self._merger.merge(draft.config, overlay(split[1], override))

    def _override_all(self, override: Override) -> None:
        """Apply an experiment's path on top of every experiment that has it."""
        if override.keys[0] not in self._config_keys:
            unknown(override, self._problems, self.addresses().nearest(override.path))
            return
        if override.keys[0] == "pipeline" and len(override.keys) < 2:
            self._problems.add(override.mark, "names no stage; for example pipeline.train.steps=10")
            return
        over = overlay(override.keys, override)
        applied = False
        for draft in self._drafts.values():
            if override.keys[0] == "pipeline":
                pipeline = draft.config.get("pipeline")
                if not isinstance(pipeline, Block) or pipeline.get(override.keys[1]) is None:
                    continue
            draft.config = self._merger.merge(draft.config, over)
            applied = True
        if not applied and self._drafts:
            hint = self.addresses().nearest(override.path)
            self._problems.add(override.mark, f"no experiment has a stage {override.keys[1]!r}", hint)

    def _shorten(self) -> None:
        """Make every stage that counts steps or epochs one epoch long."""
        mark = Mark("--quick", None, "pipeline")
        known: dict[int, tuple[Any, Block]] = {}
        for draft in self._drafts.values():
            pipeline = draft.config.get("pipeline")
            if not isinstance(pipeline, Block):
                continue
            if id(pipeline) not in known:
                over = Block()
                for stage in self.pipelines.declared(pipeline):
                    if trains(stage.spec):
                        length = marked({"epochs": 1, "steps": None}, mark.child(stage.name))
                        over = self._merger.merge(
                            over, nested(["pipeline", stage.name], length, mark.child(stage.name))
                        )
                known[id(pipeline)] = (pipeline, over)
            draft.config = self._merger.merge(draft.config, known[id(pipeline)][1])

    def _finish(self, draft: Draft) -> Experiment:
        stages = self.pipelines.stages(draft.name, draft.config, draft.mark)
        check_selects(draft.name, stages, draft.config, draft.mark, pipelines=self.pipelines, problems=self._problems)
        seeds = draft.entry.seeds
        if seeds is not None and len(set(seeds)) < len(seeds):
            self._problems.add(draft.mark.child("seeds"), "a seed is given twice")
        return Experiment(
            name=draft.name,
            stages=stages,
            config=draft.config,
            label=draft.label,
            purpose=draft.entry.purpose,
            like=draft.like,
            estimate=draft.estimate,
            priority=draft.entry.priority,
            planned=draft.entry.planned,
            seeds=self._seeds if seeds is None else seeds,
            gate=draft.entry.gate if isinstance(draft.entry, ExperimentEntry) else None,
            line=draft.mark.line,
        )
