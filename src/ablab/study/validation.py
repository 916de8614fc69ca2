"""Validates raw blocks against their types, once for each distinct block, and words what is wrong.

The types are pydantic models; their errors become sentences with file, line, path, what was found, what was expected
and the nearest valid name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from ablab.study.fields import item_models, models_in, names, step
from ablab.study.problems import Mark, Problems, join, listed, nearest, shown
from ablab.study.wording import check_types, choices, expected, sentence
from ablab.study.yaml12 import Block, Items

Model = TypeVar("Model", bound=BaseModel)


class Validator:
    """Validates blocks and collects problems; equal (identical) blocks are validated once.

    Args:
        problems: where problems are noted.
        elsewhere: for an unknown key, valid study paths of that name in other blocks.
    """

    def __init__(self, problems: Problems, elsewhere: Callable[[str], str | None] = lambda _: None) -> None:
        self.problems = problems
        self._elsewhere = elsewhere
        self._known: dict[tuple[type[BaseModel], int], tuple[BaseModel | None, object]] = {}

    def validate(self, model: type[Model], raw: Any, mark: Mark) -> Model | None:
        """Return the typed block, or None after noting every problem.

        Args:
            model: the type.
            raw: a `Block`, or anything else the file holds in its place.
            mark: where the block stands, for what is missing from it.
        """
        known = self._known.get((model, id(raw)))
        if known is not None:
            return known[0]  # type: ignore[return-value]  # stored under its own type
        typed = self._validate(model, raw, mark)
        if raw or typed is not None:
            # What an empty block lacks is told at each place; all else once, where it was written.
            self._known[model, id(raw)] = (typed, raw)
        return typed

    def _validate(self, model: type[Model], raw: Any, mark: Mark) -> Model | None:
        try:
            typed = model.__pydantic_validator__.validate_python(raw)
        except ValidationError as error:
            self._report(model, raw, mark, error)
            return None
        before = len(self.problems)
        check_types(raw, typed, mark, self.problems)
        if len(self.problems) > before:
            return None
        assert isinstance(typed, model)
        return typed

    def _report(self, model: type[BaseModel], raw: Any, mark: Mark, error: ValidationError) -> None:
        for group in _groups(raw, mark, error.errors(include_url=False)):
            self._word(model, group)

    def _word(self, model: type[BaseModel], group: _Group) -> None:
        first = group.errors[0]
        kind = first["type"]
        if kind == "extra_forbidden":
            self._unknown(model, group)
        elif kind in ("value_error", "assertion_error"):
            text = sentence(first)
            self.problems.add(_blame(group, text), text)
        elif kind == "missing":
            name = str(group.keys[-1]) if group.keys else "a value"
            self.problems.add(group.mark, f"{name} is required here and is missing")
        else:
            wanted = " or ".join(dict.fromkeys(expected(error) for error in group.errors))
            valid = [choice for error in group.errors for choice in choices(error)]
            hint = nearest(group.value, valid) if isinstance(group.value, str) and valid else None
            self.problems.add(group.mark, f"expected {wanted}, found {shown(group.value)}", hint)

    def _unknown(self, model: type[BaseModel], group: _Group) -> None:
        name = str(group.keys[-1])
        models = _models_at(model, group.keys[:-1])
        valid = names(tuple(one for one in models if _is_tagged(one, group.tags)) or models)
        hint = nearest(name, valid)
        if hint is None:
            elsewhere = self._elsewhere(name)
            hint = None if elsewhere is None or group.mark.path.endswith(elsewhere) else elsewhere
        self.problems.add(group.mark, f"unknown key {name!r}; known here: {listed(valid, limit=30)}", hint)


class _Place(NamedTuple):
    """What an error is about: keys from the validated block, mark, value, and the union members that were tried."""

    keys: tuple[str | int, ...]
    mark: Mark
    value: Any
    tags: tuple[tuple[int, str], ...]


class _Group(NamedTuple):
    """Errors about one place."""

    keys: tuple[str | int, ...]
    mark: Mark
    value: Any
    tags: frozenset[str]
    errors: list[Mapping[str, Any]]


def _groups(raw: Any, mark: Mark, details: Iterable[Any]) -> list[_Group]:
    """Gather errors by the place they are about; of a union of blocks, only the member that fits best counts."""
    found = [(detail, _locate(raw, mark, detail)) for detail in details]
    worse = _worse_members([place for _, place in found], raw)
    groups: dict[tuple[str | int, ...], _Group] = {}
    for detail, place in found:
        if not any((place.keys[:depth], tag) in worse for depth, tag in place.tags):
            tags = frozenset(tag for _, tag in place.tags)
            groups.setdefault(place.keys, _Group(place.keys, place.mark, place.value, tags, [])).errors.append(detail)
    return list(groups.values())


def _worse_members(places: Iterable[_Place], raw: Any) -> set[tuple[tuple[str | int, ...], str]]:
    """Return the members of unions that a mapping was tried as and that failed more than another member did."""
    counts: dict[tuple[str | int, ...], dict[str, int]] = {}
    for place in places:
        for depth, tag in place.tags:
            keys = place.keys[:depth]
            if isinstance(_value_at(raw, keys), Block):
                # Failing as a whole ("this is no number") is worse than any number of failing fields.
                cost = 1 if len(place.keys) > depth else 1000
                members = counts.setdefault(keys, {})
                members[tag] = members.get(tag, 0) + cost
    worse = set()
    for keys, members in counts.items():
        best = min(members, key=lambda tag: members[tag])
        worse |= {(keys, tag) for tag in members if tag != best}
    return worse


def _value_at(raw: Any, keys: Iterable[str | int]) -> Any:
    for key in keys:
        if isinstance(raw, (Block, Items)):
            raw = raw[key]  # type: ignore[index]  # the keys were followed through these very values
    return raw


def _locate(raw: Any, mark: Mark, detail: Mapping[str, Any]) -> _Place:
    """Follow the error's location through the raw values; parts that name members of a union are its tags."""
    keys: list[str | int] = []
    tags: list[tuple[int, str]] = []
    value: Any = raw
    location = list(detail["loc"])
    for position, part in enumerate(location):
        if isinstance(value, Block) and part in value:
            mark, value = value.marks[str(part)], value[str(part)]
        elif isinstance(value, Items) and isinstance(part, int) and part < len(value):
            mark, value = value.marks[part], value[part]
        elif detail["type"] == "missing" and position == len(location) - 1:
            mark, value = mark.at(join(mark.path, part)), None
        else:
            tags.append((len(keys), str(part)))
            continue
        keys.append(part)
    return _Place(tuple(keys), mark, value, tuple(tags))


def _models_at(model: type[BaseModel], keys: tuple[str | int, ...]) -> tuple[type[BaseModel], ...]:
    models: tuple[type[BaseModel], ...] = (model,)
    annotation: Any = None
    for key in keys:
        found = None if isinstance(key, int) else step(models, key)
        if found is not None:
            annotation = found.field.annotation
            models = models_in(annotation)
        else:
            models = item_models(annotation)
    return models or (model,)


def _is_tagged(model: type[BaseModel], tags: frozenset[str]) -> bool:
    """Tell whether a member of a union is the one that an error's location names, by class or by discriminator."""
    return model.__name__ in tags or any(
        field.default in tags for field in model.model_fields.values() if field.default
    )


def _blame(group: _Group, text: str) -> Mark:
    """Return the mark of the field a rule's sentence speaks of: of those it names, the one written last on top.

    A rule between fields is reported for their block; the block's parts may come from the defaults and from an
    experiment, and the line that broke the rule is the more special one.
    """
    value = group.value
    if not isinstance(value, Block):
        return group.mark
    words = set(re.findall(r"\w+", text))
    named = [value.marks[key] for key in value if key in words] or list(value.marks.values())
    if not named:
        return group.mark
    special = [mark for mark in named if not mark.path.startswith("defaults.")] or named
    blamed = max(special, key=lambda mark: (mark.line is None, mark.line or 0))
    return blamed.at(blamed.path.rpartition(".")[0] or group.mark.path)
