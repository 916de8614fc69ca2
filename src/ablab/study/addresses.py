"""Which paths an experiment of a task has (model.layers, pipeline.train.steps), and the nearest to a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cached_property

from ablab.contract.kinds import STAGE_KEYS, stage_kinds
from ablab.contract.task import StageSpec, TaskSpec
from ablab.study import fields
from ablab.study.fields import Found


class Addresses:
    """The paths of experiments of one task.

    Args:
        task: the task.
        stages: kinds each stage name has in the experiments concerned; None takes the task's own pipeline.
        own: keys of open sections that the experiments have; an open section that is not named here may hold any.
    """

    def __init__(
        self,
        task: TaskSpec,
        stages: Mapping[str, Iterable[StageSpec]] | None = None,
        *,
        own: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self.task = task
        kinds = stage_kinds(task)
        if stages is None:
            named = {name: str(raw.get("kind", name)) for name, raw in task.pipeline.items()}
            stages = {name: [kinds[kind]] for name, kind in named.items() if kind in kinds}
        self.stages = {name: tuple(specs) for name, specs in stages.items()}
        self.own = {section: tuple(names) for section, names in (own or {}).items()}

    def find(self, path: str) -> Found | None:
        """Return the field at a path; None for a path that does not exist or that names no single field."""
        first, _, rest = path.partition(".")
        if first in self.own and rest not in self.own[first]:
            return None
        if first in self.task.sections:
            return fields.find((self.task.sections[first],), rest) if rest else None
        stage, _, rest = rest.partition(".")
        if first != "pipeline" or not rest:
            return None
        return self._in_stage(self.stages.get(stage, ()), rest)

    def exists(self, path: str) -> bool:
        """Tell whether a path is a section, a stage, or a field of one."""
        if path in self.task.sections or path == "pipeline":
            return True
        parts = path.split(".")
        if parts[0] == "pipeline" and parts[1] in self.stages:
            readable = {section for spec in self.stages[parts[1]] for section in spec.sections}
            if len(parts) == 2 or (len(parts) == 3 and (parts[2] in STAGE_KEYS or parts[2] in readable)):
                return True
        return self.find(path) is not None

    def nearest(self, path: str) -> str | None:
        """Return the valid path most like a wrong one: the same last name first, then the closest spelling."""
        last = path.rpartition(".")[2]
        same = [candidate for candidate in self.all if candidate.rpartition(".")[2] == last]
        for candidates, cutoff in ((same, 0.0), (self.all, 0.6)):
            close = difflib.get_close_matches(path, candidates, n=1, cutoff=cutoff)
            if close:
                return close[0]
        names = {candidate.rpartition(".")[2]: candidate for candidate in reversed(self.all)}
        close = difflib.get_close_matches(last, names, n=1, cutoff=0.75)
        return names[close[0]] if close else None

    @cached_property
    def all(self) -> tuple[str, ...]:
        """Every path, sections first."""
        found = []
        for section, model in self.task.sections.items():
            found += [section, *(f"{section}.{path}" for path in (*fields.paths(model), *self.own.get(section, ())))]
        for stage, specs in self.stages.items():
            found.append(f"pipeline.{stage}")
            for spec in specs:
                found += [f"pipeline.{stage}.{path}" for path in fields.paths(spec.parameters)]
        return tuple(dict.fromkeys(found))

    def _in_stage(self, specs: Iterable[StageSpec], path: str) -> Found | None:
        first, _, rest = path.partition(".")
        for spec in specs:
            if first in spec.sections:
                found = fields.find((self.task.sections[first],), rest) if rest else None
            else:
                found = fields.find((spec.parameters,), path)
            if found is not None:
                return found
        return None
