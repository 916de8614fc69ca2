"""Run keys: the hash of what determines a result, so that equal work has an equal key wherever it is asked for.

A key is the first 20 hex digits of the SHA-256 of canonical JSON (sorted keys, no spaces, Python's shortest floats):

    [<stage>, {"inputs": [[kind, key, checkpoint], ...], "seed": ...}]

where <stage> is the SHA-256 (hex) of what is the same for all runs of a stage, so that it is hashed once:

    {"code": ..., "data": ..., "kind": ..., "parameters": ..., "sections": ..., "task": ..., "version": ...}

| part | what enters | what never does |
|---|---|---|
| task, kind, version | name of the task and the stage kind, version of Ablab's own code for it | names of stages, experiments, study |
| code | digest of files beside Ablab's that compute the stage | their paths |
| parameters | fields that differ from their defaults, precision as its word, the effective batch | fields marked `keyed=False`; fields whose `stages` omit the kind |
| micro_batch | only where the loss couples samples | otherwise: a split of the batch adds up |
| validation.every, checkpoints.metric and .mode | where early stopping is set or the best checkpoint is consumed | where only the last one counts |
| sections | those the kind reads, as parameters | the others |
| data | content of files and folders, hub name with its revision | paths |
| inputs | kind, key and checkpoint of each; the reference too where two inputs have one kind | order between kinds |
| seed | where the stage draws from it | otherwise null |

`validation.batches` always counts: it changes the validation values of a result even where only the last is read.
Which runs there are and how they connect is `ablab.plan.planning`'s.
"""  # noqa: E501 - a table row is one line

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from os import PathLike, fspath
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ablab.contract.failure import DataError
from ablab.contract.task import DataReference
from ablab.study.fields import is_keyed, item_models, models_in
from ablab.study.schema import Stage

#: Hex digits of a key: 80 bits, a collision among a billion runs has probability 4e-7.
DIGITS = 20

#: Fields of a train-like stage that decide which checkpoint is best.
SCHEDULE = frozenset({"validation.every", "checkpoints.metric", "checkpoints.mode"})

canonical: Callable[[Any], str] = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode

_NOTHING: frozenset[str] = frozenset()
_MISSING = object()
_quoted: Callable[[str], str] = json.encoder.encode_basestring


class _Field(NamedTuple):
    """How one field of a block enters a key: its name as JSON, its default as given and as JSON.

    `model` is the only block that the field's type allows, `fields` are that block's own.
    """

    name: str
    label: str
    default: Any
    text: str | None
    model: type[BaseModel] | None
    fields: tuple[_Field, ...] | None


@cache
def keyed_fields(model: type[BaseModel], kind: str, omit: frozenset[str] = _NOTHING) -> tuple[_Field, ...]:
    """Return the fields of a block that determine the result of a stage kind, sorted by name.

    Args:
        model: the block.
        kind: stage kind that reads it.
        omit: dotted paths left out.
    """
    found = []
    for name, field in sorted(model.model_fields.items()):
        if name in omit or not is_keyed(field, kind):
            continue
        models = {*models_in(field.annotation), *item_models(field.annotation)}
        sole = models.pop() if len(models) == 1 else None
        inner = frozenset(path[len(name) + 1 :] for path in omit if path.startswith(f"{name}."))
        fields = keyed_fields(sole, kind, inner) if sole is not None and sole is not model else None
        default = _default_of(field)
        text = None if default is _MISSING else _text(default, kind, sole, fields)
        found.append(_Field(name, f"{_quoted(name)}:", default, text, sole, fields))
    return tuple(found)


def _default_of(field: FieldInfo) -> Any:
    """Return the default of a field; a factory that reads other fields counts as no default."""
    if field.default_factory is not None:
        return _MISSING if field.default_factory_takes_validated_data else field.get_default(call_default_factory=True)
    return _MISSING if field.default is PydanticUndefined else field.default


def block_text(block: BaseModel, kind: str, omit: frozenset[str] = _NOTHING) -> str:
    """Return the keyed fields of a block that differ from their defaults, as canonical JSON.

    Args:
        block: the block.
        kind: stage kind that reads it.
        omit: dotted paths left out.
    """
    return f"{{{','.join(_differing(block, kind, keyed_fields(block.__class__, kind, omit)))}}}"


def _differing(block: BaseModel, kind: str, fields: tuple[_Field, ...]) -> list[str]:
    """Return `"name":value` of the fields that differ from their defaults."""
    values = block.__dict__
    found = []
    for name, label, default, default_text, model, inner in fields:
        value = values[name]
        if value is default:
            continue
        text = _text(value, kind, model, inner)
        # A number may be equal and yet be written otherwise: a default of 1 in a field of floats.
        if text != default_text and (value.__class__ is not float or value != default):
            found.append(label + text)
    if block.__pydantic_extra__:
        # An open block: keys of the user's own, none of which has a default.
        own = sorted(block.__pydantic_extra__.items())
        found += [f"{_quoted(name)}:{_text(value, kind, None, None)}" for name, value in own]
    return found


def _text(value: Any, kind: str, model: type[BaseModel] | None, fields: tuple[_Field, ...] | None) -> str:
    """Turn a value into canonical JSON; a block is its differing fields, named where its type leaves a choice."""
    cls = value.__class__
    if cls is model:
        return f"{{{','.join(_differing(value, kind, keyed_fields(cls, kind) if fields is None else fields))}}}"
    if cls is str:
        return _quoted(value)
    if cls is float or cls is int:
        return canonical(value) if value != value or value in (math.inf, -math.inf) else repr(value)
    if value is None:
        return "null"
    if cls is bool:
        return "true" if value else "false"
    return _compound_text(value, kind, model, fields)


def _compound_text(value: Any, kind: str, model: type[BaseModel] | None, fields: tuple[_Field, ...] | None) -> str:
    """Turn what is neither a plain scalar nor the expected block into canonical JSON."""
    if isinstance(value, BaseModel):
        name = f'"":{_quoted(value.__class__.__name__)}'
        return f"{{{','.join([name, *_differing(value, kind, keyed_fields(value.__class__, kind))])}}}"
    if isinstance(value, Mapping):
        items = sorted(((str(key), item) for key, item in value.items()), key=lambda pair: pair[0])
        return f"{{{','.join([f'{_quoted(key)}:{_text(item, kind, model, fields)}' for key, item in items])}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join([_text(item, kind, model, fields) for item in value])}]"
    if isinstance(value, set | frozenset):
        return f"[{','.join(sorted(_text(item, kind, model, fields) for item in value))}]"
    if isinstance(value, enum.Enum):
        return canonical(value.value)
    if isinstance(value, PathLike):
        return _quoted(str(fspath(value)))
    if isinstance(value, str | int | float):
        return canonical(value)
    raise TypeError(f"a parameter of type {type(value).__name__} cannot enter a key: {value!r}")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a stage brings into the keys of its runs, before inputs and seed.

    Args:
        digest: SHA-256 (hex) of the stage alone.
        config: its first digits: equal for runs that differ in seed and inputs only.
        seeded: whether the stage itself draws from the seed.
        unresolved: references whose content is unknown; a run with such a key never starts.
    """

    digest: str
    config: str
    seeded: bool
    unresolved: tuple[str, ...] = ()


class InputKey(NamedTuple):
    """An input as it enters a key; `reference` is empty unless another input has the same kind."""

    kind: str
    key: str
    checkpoint: str = "last"
    reference: str = ""


def input_template(inputs: Iterable[InputKey]) -> str:
    """Return the canonical JSON of inputs with `%s` where each key goes; kinds are sorted, order within one kept."""
    rows = []
    for one in sorted(inputs, key=lambda item: item.kind):
        tail = [one.checkpoint, one.reference] if one.reference else [one.checkpoint]
        text = canonical([one.kind, "\0", *tail]).replace("%", "%%")
        rows.append(text.replace('"\\u0000"', '"%s"', 1))
    return f'{{"inputs":[{",".join(rows)}],"seed":'


class Keyer:
    """Makes keys for one study; what is shared between stages is turned into JSON and hashed once.

    Args:
        task: name of the study's task.
        task_files: code files of the task beside Ablab's.
        resolve: says the content of a data reference ("sha256..." or "name@revision") and whether that is known.
        digest: says the digest of code files.
    """

    def __init__(
        self,
        *,
        task: str,
        resolve: Callable[[DataReference], tuple[str, bool]],
        digest: Callable[[list[str]], str],
        task_files: Iterable[str] = (),
    ) -> None:
        self._task = canonical(task)
        self._task_files = list(task_files)
        self._resolve = resolve
        self._digest = digest
        self._texts: dict[tuple[int, str, bool], str] = {}
        self._identities: dict[tuple[object, ...], Identity] = {}
        self._alive: list[object] = []

    def identity(self, stage: Stage, *, scheduled: bool = False) -> Identity:
        """Return the identity of a stage.

        Args:
            stage: the stage.
            scheduled: whether its best checkpoint is consumed, so that the validation schedule counts.
        """
        spec, parameters = stage.spec, stage.parameters
        blocks = [stage.sections[name] for name in spec.sections]
        memo = (id(spec), id(parameters), scheduled, *map(id, blocks))
        known = self._identities.get(memo)
        if known is None:
            # Ids are only unique among the living.
            self._alive.append((stage, blocks))
            known = self._identities[memo] = self._identify(stage, blocks, scheduled)
        return known

    def _identify(self, stage: Stage, blocks: list[Any], scheduled: bool) -> Identity:
        spec, kind = stage.spec, stage.kind
        scheduled = scheduled or getattr(stage.parameters, "early_stopping", None) is not None
        parameters = self._block(stage.parameters, kind, scheduled)
        texts = {name: self._block(block, kind, True) for name, block in zip(spec.sections, blocks, strict=True)}
        sections = ",".join([f"{_quoted(name)}:{texts[name]}" for name in sorted(texts)])
        data, unresolved = self._data(stage)
        digest, missing = self._code(stage)
        code, unresolved = _quoted(digest), (*unresolved, *missing)
        split = ""
        if spec.couples is not None and spec.couples(stage.sections, stage.parameters):
            split = f',"split":{canonical(getattr(stage.parameters, "micro_batch", None))}'
        text = (
            f'{{"code":{code},"data":{data},"kind":{_quoted(kind)},"parameters":{parameters},'
            f'"sections":{{{sections}}}{split},"task":{self._task},"version":{spec.version}}}'
        )
        seeded = spec.seeded(stage.sections, stage.parameters) if callable(spec.seeded) else spec.seeded
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Identity(digest, digest[:DIGITS], bool(seeded), unresolved)

    def _block(self, block: Any, kind: str, scheduled: bool) -> str:
        memo = (id(block), kind, scheduled)
        text = self._texts.get(memo)
        if text is None:
            text = block_text(block, kind, _NOTHING if scheduled else SCHEDULE)
            self._texts[memo] = text
            self._alive.append(block)
        return text

    def _data(self, stage: Stage) -> tuple[str, tuple[str, ...]]:
        """Return the contents a stage reads from outside the store as JSON, and what is not known of them."""
        if stage.spec.references is None:
            return "[]", ()
        contents, unresolved = [], []
        for reference in stage.spec.references(stage.sections, stage.parameters):
            content, known = self._resolve(reference)
            contents.append([reference.kind, reference.path, content])
            if not known:
                unresolved.append(content)
        return canonical(contents), tuple(unresolved)

    def _code(self, stage: Stage) -> tuple[str, tuple[str, ...]]:
        """Return the digest of the code beside Ablab's that computes a stage, and what of it is missing."""
        files = stage.spec.files(stage.sections, stage.parameters) if stage.spec.files is not None else []
        if not files and not self._task_files:
            return "", ()
        try:
            return self._digest([*self._task_files, *files]), ()
        except DataError as error:
            return "", (f"code: {error}",)


def finish_key(identity: Identity, inputs: str, seed: int) -> str:
    """Return the key of a run from the identity of its stage, the JSON of its inputs, and the seed."""
    drawn = seed if identity.seeded else "null"
    return hashlib.sha256(f'["{identity.digest}",{inputs}{drawn}}}]'.encode()).hexdigest()[:DIGITS]


def run_key(identity: Identity, *, inputs: Iterable[InputKey] = (), seed: int = 0) -> str:
    """Return the key of one run; `seed` counts only where the stage draws from it."""
    rows = list(inputs)
    keys = tuple(one.key for one in sorted(rows, key=lambda item: item.kind))
    return finish_key(identity, input_template(rows) % keys, seed)
