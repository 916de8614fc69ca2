"""Loads a study: file, profile, overrides, then everything resolved and typed, all problems told at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ablab.contract.collector import collector_paused
from ablab.contract.registry import RegistryError, find_task
from ablab.contract.task import StageSpec, TaskSpec
from ablab.study.addresses import Addresses
from ablab.study.comparisons import Comparisons
from ablab.study.document import StudyFile
from ablab.study.experiments import Experiments
from ablab.study.merging import Merger
from ablab.study.nodes import read_text
from ablab.study.overrides import Override, apply, is_top_level, names_experiment, parse_overrides
from ablab.study.problems import Mark, Problem, Problems, StudyError, shown
from ablab.study.profiles import with_profile
from ablab.study.schema import Experiment, Study
from ablab.study.validation import Validator
from ablab.study.webhooks import addresses, without_addresses
from ablab.study.yaml12 import Block, parse

__all__ = ["Problem", "StudyError", "load", "load_text"]

Result = TypeVar("Result")

#: Experiments up to which every profile is checked, not only the one in use; above, that would double the time.
PROFILES_CHECKED = 1000


def load(path: Path | str, *, profile: str = "full", overrides: Sequence[str] = (), quick: bool = False) -> Study:
    """Load a study file.

    Args:
        path: the YAML file.
        profile: name of an overlay; "full" is the study itself unless the file defines it.
        overrides: `key=value`, each a path from the top (seeds, experiments.GPT-01.model.layers, compute.threads) or
            a path of every experiment (model.layers), with the value in YAML.
        quick: one epoch for every stage that counts steps or epochs.

    Raises:
        StudyError: every problem found, each with file, line, path and the nearest valid name.
    """
    path = Path(path)
    text = read_text(path)
    with collector_paused():
        return load_text(text, path=path, profile=profile, overrides=overrides, quick=quick)


def load_text(
    text: str, *, path: Path | str, profile: str = "full", overrides: Sequence[str] = (), quick: bool = False
) -> Study:
    """Load a study from its text; `path` is where the text came from, for messages and relative files."""
    document, faults, lines = parse(text, file=str(path))
    problems = Problems()
    for fault in faults:
        problems.add(Mark(fault.file, fault.line, fault.path), fault.message)
    if not isinstance(document, Block):
        found = "nothing" if document is None else shown(document)
        problems.add(Mark(str(path), 1, ""), f"expected a mapping with name, task and experiments, found {found}")
        problems.check()
        raise AssertionError("unreachable: the problem above was raised")
    root = Mark(str(path), 1, "")
    merger = Merger()
    profiled, names = with_profile(document, profile, root, merger=merger, problems=problems)
    resolver = _Resolver(profiled, root, Path(path), merger=merger, problems=problems)
    study = resolver.study(parse_overrides(overrides, problems), quick=quick)
    if study is None or len(study.experiments) <= PROFILES_CHECKED:
        for name in names:
            if name != profile:
                _check_profile(document, name, root, Path(path), problems)
    problems.check()
    assert study is not None
    hidden = addresses(document, study)
    return dataclasses.replace(
        study,
        text=without_addresses(text, hidden),
        lines=lines,
        profile=profile,
        profiles=names,
        overrides=tuple(without_addresses(override, hidden) for override in overrides),
    )


def _check_profile(document: Block, profile: str, root: Mark, path: Path, problems: Problems) -> None:
    """Note what is wrong under another profile than the one in use, so that it is found before it is needed."""
    found = Problems()
    merger = Merger()
    profiled, _ = with_profile(document, profile, root, merger=merger, problems=found)
    _Resolver(profiled, root, path, merger=merger, problems=found).study((), quick=False)
    problems.include(found, note=f"in profile {profile}")


class _Resolver:
    """Resolves one document, once the profile is merged."""

    def __init__(self, document: Block, root: Mark, path: Path, *, merger: Merger, problems: Problems) -> None:
        self._document = document
        self._root = root
        self._path = path
        self._merger = merger
        self._problems = problems

    def study(self, overrides: Iterable[Override], *, quick: bool) -> Study | None:
        """Return the study, or None where a problem left something out."""
        for_each = self._apply(overrides)
        task = self._task()
        addresses = Addresses(task) if task is not None else None
        validator = Validator(self._problems, addresses.nearest if addresses is not None else lambda _: None)
        file = validator.validate(StudyFile, self._document, self._root)
        if task is None:
            return None
        seeds = file.seeds if file is not None else (0,)
        if len(set(seeds)) < len(seeds):
            self._problems.add(self._mark("seeds"), "a seed is given twice")
        resolver = Experiments(task, seeds=seeds, validator=validator, merger=self._merger, problems=self._problems)
        experiments = resolver.resolve(self._document, self._root, overrides=for_each, quick=quick)
        comparisons = Comparisons(
            task,
            names=list(experiments),
            kinds=_kinds(experiments),
            addresses=resolver.addresses,
            validator=validator,
            problems=self._problems,
        )
        compared = self._given("comparisons", comparisons.comparisons)
        references = self._given("references", comparisons.references)
        if file is None or len(self._problems):
            return None
        return Study(
            name=file.name,
            question=file.question,
            description=file.description,
            task=task,
            seeds=file.seeds,
            experiments=experiments,
            comparisons=compared or (),
            references=references or {},
            retention=file.retention,
            compute=file.compute,
            accept=file.accept,
            notify=file.notify,
            checklist=file.checklist,
            path=str(self._path),
        )

    def _apply(self, overrides: Iterable[Override]) -> list[Override]:
        """Apply overrides from the top to the document; return those that apply to experiments once resolved."""
        later = []
        for override in overrides:
            experiments = self._document.get("experiments")
            names = experiments if isinstance(experiments, Block) else ()
            is_made = override.keys[0] == "experiments" and names_experiment(override, names) is None
            if not is_top_level(override) or is_made:
                later.append(override)
            else:
                self._document = apply(self._document, override, self._merger, self._problems)
        return later

    def _task(self) -> TaskSpec | None:
        name = self._document.get("task")
        if not isinstance(name, str):
            if name is not None:
                self._problems.add(self._mark("task"), f"expected the name of a task, found {shown(name)}")
            return None
        try:
            return find_task(name, folder=self._path.parent)
        except RegistryError as error:
            self._problems.add(self._mark("task"), str(error), error.suggestion)
            return None

    def _given(self, key: str, resolve: Callable[[Any, Mark], Result]) -> Result | None:
        raw = self._document.get(key)
        return None if raw is None else resolve(raw, self._mark(key))

    def _mark(self, key: str) -> Mark:
        return self._document.marks.get(key, self._root.at(key))


def _kinds(experiments: Mapping[str, Experiment]) -> list[StageSpec]:
    """Return the stage kinds that occur, each with the metrics that its parameters make it yield."""
    found: dict[object, StageSpec] = {}
    for experiment in experiments.values():
        for stage in experiment.stages:
            spec = stage.spec
            metrics = spec.metrics if spec.yields is None else spec.yields(stage.parameters)
            if (id(spec), metrics) not in found:
                found[id(spec), metrics] = dataclasses.replace(spec, metrics=("*",) if metrics is None else metrics)
    return list(found.values())
