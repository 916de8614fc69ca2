"""Walks the typed blocks of a study by dotted path: which fields exist, what type they have, which names are near.

Works on the declarations (pydantic models) only, never on values.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ablab.contract.base import Open, Scalar, setting

#: How deep paths are listed; configurations that nest deeper are still checked, only not suggested.
LISTED_DEPTH = 8


class Found(NamedTuple):
    """A field and the block that declares it."""

    model: type[BaseModel]
    name: str
    field: FieldInfo

    @property
    def type(self) -> Any:
        """Declared type of the field."""
        return self.field.annotation


def models_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Return the blocks a value of this type may be itself (through Optional, Union and Annotated)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return models_in(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(model for part in typing.get_args(annotation) for model in models_in(part))
    return ()


def item_models(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Return the blocks that stand inside a list, tuple or mapping of this type."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return item_models(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(model for part in typing.get_args(annotation) for model in item_models(part))
    if origin is None:
        return ()
    return tuple(model for part in typing.get_args(annotation) if part is not ... for model in models_in(part))


def is_open(annotation: Any) -> bool:
    """Tell whether a value of this type may hold keys of the user's own (a mapping, or anything at all)."""
    if annotation is Any or annotation is dict:
        return True
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return is_open(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return any(is_open(part) for part in typing.get_args(annotation))
    return isinstance(origin, type) and issubclass(origin, Mapping)


def step(models: tuple[type[BaseModel], ...], name: str) -> Found | None:
    """Return the field `name` of the first of the blocks that has it."""
    for model in models:
        field = model.model_fields.get(name)
        if field is not None and field.alias in (None, name):
            return Found(model, name, field)
        for attribute, other in model.model_fields.items():
            if other.alias == name:
                return Found(model, attribute, other)
        if issubclass(model, Open):
            return Found(model, name, _own())
    return None


@cache
def _own() -> FieldInfo:
    """Return the field that stands for every key of an open block."""
    return FieldInfo.from_annotated_attribute(Scalar, setting(None, "A value of the user's own."))  # type: ignore[arg-type]


def find(models: tuple[type[BaseModel], ...], path: str) -> Found | None:
    """Return the field at a dotted path under any of the blocks; None when there is none."""
    found: Found | None = None
    for part in path.split("."):
        name, _, index = part.partition("[")
        if found is not None and is_open(found.type):
            return found
        found = step(models, name)
        if found is None:
            return None
        models = item_models(found.type) if index else models_in(found.type)
    return found


def names(models: tuple[type[BaseModel], ...]) -> list[str]:
    """Return the field names of the blocks, as a study writes them."""
    return list(dict.fromkeys(field.alias or name for model in models for name, field in model.model_fields.items()))


@cache
def paths(model: type[BaseModel], depth: int = LISTED_DEPTH) -> tuple[str, ...]:
    """Return every dotted path of a block, its inner blocks included."""
    return tuple(_walk((model,), depth))


def _walk(models: tuple[type[BaseModel], ...], depth: int) -> Iterator[str]:
    for name in names(models):
        yield name
        found = step(models, name)
        inner = models_in(found.type) if found is not None and depth > 1 else ()
        for path in _walk(inner, depth - 1) if inner else ():
            yield f"{name}.{path}"


def extra(field: FieldInfo) -> Mapping[str, Any]:
    """Return the marks that `ablab.contract.base.setting` put on a field (keyed, stages, unit)."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def is_keyed(field: FieldInfo, kind: str | None = None) -> bool:
    """Tell whether a field determines the result (of a stage of this kind)."""
    marks = extra(field)
    if marks.get("keyed", True) is False:
        return False
    stages = marks.get("stages")
    return kind is None or not isinstance(stages, list) or kind in stages
