"""Makes typed stages of an experiment's merged configuration: kinds, parameters, and the sections each stage reads.

Work is shared: a stage whose raw blocks are those of another experiment's is the same `Stage` object.
"""

from __future__ import annotations

from typing import Any

from ablab.contract.base import Open, Strict
from ablab.contract.kinds import STAGE_KEYS, stage_kinds
from ablab.contract.task import StageSpec, TaskSpec
from ablab.study.document import STAGE_NAME
from ablab.study.merging import Merger, without
from ablab.study.needs import Declared, Needs
from ablab.study.problems import Mark, Problems, listed, nearest, shown
from ablab.study.schema import Need, Stage
from ablab.study.validation import Validator
from ablab.study.yaml12 import Block, Items

EMPTY = Block()


class Pipelines:
    """Makes the stages of experiments, each distinct piece once."""

    def __init__(self, task: TaskSpec, *, validator: Validator, merger: Merger, problems: Problems) -> None:
        self.task = task
        self.kinds = stage_kinds(task)
        self.needs = Needs(problems)
        self._validator = validator
        self._merger = merger
        self._problems = problems
        self._section_keys = frozenset(task.sections)
        self._not_parameters = frozenset((*STAGE_KEYS, *task.sections))
        self._declared: dict[tuple[str, int], tuple[Declared | None, Any]] = {}
        self._stages: dict[tuple[int, ...], tuple[Stage | None, object]] = {}
        self._unread: dict[tuple[object, ...], object] = {}

    def stages(self, name: str, config: Block, mark: Mark) -> tuple[Stage, ...]:
        """Return the stages of experiment `name`, inputs before what needs them; problems are noted."""
        pipeline = config.get("pipeline", EMPTY)
        if not isinstance(pipeline, Block):
            self._problems.add(config.marks["pipeline"], f"expected a mapping of stages, found {shown(pipeline)}")
            return ()
        for section, model in self.task.sections.items():
            self._validator.validate(model, config.get(section, EMPTY), _mark(config, section, mark))
        declared = self.declared(pipeline)
        if not declared:
            what = "every stage is removed" if pipeline else "no stage is given"
            self._problems.add(_mark(config, "pipeline", mark), what + "; an experiment needs one")
        order = self.needs.order(name, declared)
        made = [self._stage(declared[placed.position], placed.needs, config, mark) for placed in order]
        self._check_unread(declared, config)
        return tuple(stage for stage in made if stage is not None)

    def _check_unread(self, declared: list[Declared], config: Block) -> None:
        """Note the keys of open sections that no stage reads."""
        for section, model in self.task.sections.items():
            raw = config.get(section)
            if not issubclass(model, Open) or not isinstance(raw, Block):
                continue
            stages = tuple(stage for stage in declared if section in stage.spec.sections)
            key = (section, id(raw), *map(id, stages))
            if key in self._unread:
                continue
            self._unread[key] = (raw, stages)
            self._note_unread(section, raw, stages)

    def _note_unread(self, section: str, raw: Block, stages: tuple[Declared, ...]) -> None:
        read: set[str] = set()
        for stage in stages:
            parameters = self.typed_parameters(stage)
            if stage.spec.reads is None or parameters is None:
                return
            read |= stage.spec.reads(parameters)
            for name in stage.overrides.get(section) or ():
                if name not in stage.spec.reads(parameters):
                    place = stage.overrides[section].marks[name]
                    self._problems.add(place, f"{section}.{name} is not used by the stage {stage.name!r}")
        for name in raw:
            if name not in read:
                message = f"{section}.{name} is not used: no stage's command has {{{name}}}"
                missing = [other for other in sorted(read) if other not in raw]
                self._problems.add(raw.marks[name], message, nearest(name, missing or sorted(read)))

    def typed_parameters(self, stage: Declared) -> Any:
        """Return the typed parameters of a stage; None where they are wrong, which has been told."""
        return self._validator.validate(stage.spec.parameters, stage.parameters, stage.mark)

    def declared(self, pipeline: Block) -> list[Declared]:
        """Return the stages a raw pipeline declares; a stage set to null is removed."""
        found = []
        for name, raw in pipeline.items():
            if raw is None:
                continue
            known = self._declared.get((name, id(raw)))
            if known is None:
                known = (self._declare(name, raw, pipeline.marks[name]), raw)
                self._declared[name, id(raw)] = known
            if known[0] is not None:
                found.append(known[0])
        return found

    def type_stage(
        self, declared: Declared, config: Block, mark: Mark, *, needs: tuple[Need, ...] | None = None
    ) -> Stage | None:
        """Return a stage with its sections and parameters typed, or None after noting what is wrong.

        `needs` None leaves out what hangs on them.
        """
        before = len(self._problems)
        sections = self._sections(declared, config, mark)
        # A stage that stands only in the task's own pipeline has no line; the experiment that lacks it has.
        place = mark.child(f"pipeline.{declared.name}") if declared.mark.line is None else declared.mark
        parameters = self._validator.validate(declared.spec.parameters, declared.parameters, place)
        if parameters is None or len(sections) < len(declared.spec.sections):
            return None
        self._check(declared, sections, parameters, config, needs)
        if len(self._problems) > before:
            return None
        return Stage(
            name=declared.name,
            kind=declared.spec.kind,
            spec=declared.spec,
            needs=needs or (),
            sections={name: _narrowed(section, declared.spec, parameters) for name, section in sections.items()},
            parameters=parameters,
        )

    def _check(
        self,
        declared: Declared,
        sections: dict[str, Strict],
        parameters: Any,
        config: Block,
        needs: tuple[Need, ...] | None,
    ) -> None:
        """Note what the kind itself finds wrong with its parameters."""
        if declared.spec.check is None:
            return
        names = None if needs is None else tuple(need.text.partition("@")[0] for need in needs)
        for complaint in declared.spec.check(sections, parameters, names):
            self._problems.add(_place(complaint.path, declared, config), complaint.message, complaint.suggestion)

    def _sections(self, declared: Declared, config: Block, mark: Mark) -> dict[str, Strict]:
        """Return the sections a stage reads, typed, with its own overrides; an invalid one is noted and left out."""
        sections: dict[str, Strict] = {}
        for section in declared.spec.sections:
            raw, place = config.get(section, EMPTY), _mark(config, section, mark)
            if section in declared.overrides:
                over, place = declared.overrides[section], declared.overrides.marks[section]
                raw = self._merger.merge(raw, over) if isinstance(over, Block) and isinstance(raw, Block) else over
            typed = self._validator.validate(self.task.sections[section], raw, place)
            if typed is not None:
                sections[section] = typed
        return sections

    def _declare(self, name: str, raw: Any, mark: Mark) -> Declared | None:
        if not STAGE_NAME.match(name):
            self._problems.add(mark, f"a stage's name is letters, digits, - and _; found {name!r}")
            return None
        if not isinstance(raw, Block):
            self._problems.add(mark, f"expected a mapping of the stage's parameters, found {shown(raw)}")
            return None
        spec = self._kind(name, raw, mark)
        if spec is None:
            return None
        overrides = Block()
        for key in raw:
            if key not in self._section_keys or raw[key] is None:
                continue
            overrides[key], overrides.marks[key] = raw[key], raw.marks[key]
            if key not in spec.sections:
                reads = f"it reads {listed(spec.sections)}"
                self._problems.add(raw.marks[key], f"a {spec.kind} stage does not read the section {key!r}; {reads}")
        return Declared(
            name=name,
            spec=spec,
            needs=self._written_needs(raw),
            overrides=overrides,
            parameters=without(raw, self._not_parameters),
            mark=mark,
        )

    def _kind(self, name: str, raw: Block, mark: Mark) -> StageSpec | None:
        kind = raw.get("kind", name)
        spec = self.kinds.get(kind) if isinstance(kind, str) else None
        if spec is None:
            what = f"unknown stage kind {shown(kind)}" if "kind" in raw else f"no stage kind is called {name!r}"
            how = "" if "kind" in raw else "; a stage of another name says its `kind:`"
            hint = nearest(kind, self.kinds) if isinstance(kind, str) else None
            message = f"{what}; kinds of {self.task.name}: {listed(self.kinds)}{how}"
            self._problems.add(raw.marks.get("kind", mark), message, hint)
        return spec

    def _written_needs(self, raw: Block) -> tuple[tuple[str, Mark], ...] | None:
        written = raw.get("needs")
        if written is None:
            return None
        mark = raw.marks["needs"]
        if isinstance(written, str):
            return ((written, mark),)
        if isinstance(written, Items) and all(isinstance(item, str) for item in written):
            return tuple(zip(written, written.marks, strict=True))
        self._problems.add(mark, f"expected a list of stages ([experiment.]stage[@last|@best]), found {shown(written)}")
        return None

    def _stage(self, declared: Declared, needs: tuple[Need, ...], config: Block, mark: Mark) -> Stage | None:
        raws = [config.get(section, EMPTY) for section in declared.spec.sections]
        key = (id(declared), id(needs), *map(id, raws))
        known = self._stages.get(key)
        if known is None:
            known = (self.type_stage(declared, config, mark, needs=needs), (declared, needs, raws))
            self._stages[key] = known
        return known[0]


def _narrowed(section: Strict, spec: StageSpec, parameters: Any) -> Strict:
    """Return an open section with what the stage reads only: the rest cannot change its result."""
    if not isinstance(section, Open) or spec.reads is None:
        return section
    read = spec.reads(parameters)
    return type(section)(**{name: value for name, value in section.values.items() if name in read})


def _place(path: str, declared: Declared, config: Block) -> Mark:
    """Return the mark of what a complaint is about, as near as it was written."""
    keys = path.split(".")
    section = declared.overrides.get(keys[0]) or config.get(keys[0])
    if keys[0] in declared.spec.sections:
        if isinstance(section, Block) and keys[-1] in section.marks:
            return section.marks[keys[-1]]
        return declared.mark
    mark, value = declared.mark, declared.parameters
    for key in keys:
        if not isinstance(value, Block) or key not in value:
            break
        mark, value = value.marks[key], value[key]
    return mark


def _mark(config: Block, key: str, mark: Mark) -> Mark:
    return config.marks[key] if key in config.marks else mark.child(key)
