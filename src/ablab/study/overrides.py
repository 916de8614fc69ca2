"""`key=value` from the command line: a path from the top of the study, or a path of every experiment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ablab.study.document import StudyFile
from ablab.study.merging import Merger, nested, replaced
from ablab.study.problems import Mark, Problems, StudyError, nearest
from ablab.study.yaml12 import Block, Items, parse_value

ORIGIN = "override"


@dataclass(frozen=True, slots=True)
class Override:
    """One override, parsed."""

    keys: tuple[str, ...]
    value: Any
    mark: Mark

    @property
    def path(self) -> str:
        """The dotted path as typed."""
        return self.mark.path


def parse_overrides(texts: Iterable[str], problems: Problems) -> list[Override]:
    """Parse `key=value` texts; the value follows the YAML rules of the study file."""
    found = []
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        mark = Mark(f"{ORIGIN} {text!r}", None, key)
        if not equals or not key or any(not part for part in key.split(".")):
            problems.add(mark, "expected key=value, for example model.layers=4")
            continue
        try:
            parsed = parse_value(value.strip(), origin=mark.file, path=key)
        except StudyError as error:
            for problem in error.problems:
                problems.add(mark, problem.message)
            continue
        keys = tuple(part for piece in key.split(".") for part in _split_index(piece))
        found.append(Override(keys, parsed, mark))
    return found


def is_top_level(override: Override) -> bool:
    """Tell whether an override starts from the top of the study file."""
    return override.keys[0] in StudyFile.model_fields


def names_experiment(override: Override, names: Iterable[str]) -> tuple[str, tuple[str, ...]] | None:
    """Split `experiments.NAME.rest` where NAME, which may hold dots, is one of `names`; else None."""
    if override.keys[0] != "experiments":
        return None
    known = set(names)
    keys = override.keys[1:]
    for length in range(len(keys), 0, -1):
        name = ".".join(keys[:length])
        if name in known:
            return name, keys[length:]
    return None


def apply(document: Block, override: Override, merger: Merger, problems: Problems) -> Block:
    """Return the document with an override from the top applied; problems are noted."""
    experiments = document.get("experiments")
    split = names_experiment(override, experiments) if isinstance(experiments, Block) else None
    keys = ("experiments", split[0], *split[1]) if split else override.keys
    changed = _set(document, keys, override, merger, problems)
    return changed if isinstance(changed, Block) else document


def overlay(keys: Sequence[str], override: Override) -> Block:
    """Return the block that an override of an experiment's path puts on top."""
    return nested(list(keys), override.value, override.mark)


def _set(container: Any, keys: Sequence[str], override: Override, merger: Merger, problems: Problems) -> Any:
    """Return a container with the value set at `keys`, lists by number; mappings merge, all else replaces."""
    if not keys:
        both = isinstance(container, Block) and isinstance(override.value, Block)
        return merger.merge(container, override.value) if both else override.value
    key = keys[0]
    if isinstance(container, Items):
        if not key.isdecimal() or int(key) >= len(container):
            problems.add(override.mark, f"the list has items 0 to {len(container) - 1}; {key!r} is none of them")
            return container
        items = Items(list(container), list(container.marks))
        items[int(key)] = _set(container[int(key)], keys[1:], override, merger, problems)
        return items
    if not isinstance(container, Block):
        container = Block()
    mark = override.mark if len(keys) == 1 else container.marks.get(key, override.mark)
    return replaced(container, key, _set(container.get(key), keys[1:], override, merger, problems), mark)


def unknown(override: Override, problems: Problems, near: str | None) -> None:
    """Note an override whose first name is neither a key of the study nor of an experiment."""
    first = override.keys[0]
    hint = nearest(first, StudyFile.model_fields) if near is None else near
    problems.add(override.mark, f"no such path in the study or its experiments: {override.path}", hint)


def _split_index(piece: str) -> list[str]:
    match = re.fullmatch(r"([^\[\]]+)((?:\[\d+\])+)", piece)
    return [piece] if match is None else [match[1], *re.findall(r"\d+", match[2])]
