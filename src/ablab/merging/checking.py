"""Whether models can be merged: the same tensors, shapes, architecture and vocabulary, and not the base again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ablab.contract.failure import DataError
from ablab.merging.shards import DTYPES, FLOATS, Shards
from ablab.merging.sources import CONFIG, Adapter, FullModel, some

#: Entries compared at a time.
_PART = 1 << 20


def check_fit(reference: FullModel, model: FullModel) -> None:
    """Compare a model with the one whose tensors the result will have.

    Raises:
        DataError: another architecture or vocabulary, a tensor that is missing, too much, or of another shape.
    """
    _check_architecture(reference, model)
    _check_tokens(reference, model)
    ours, theirs = reference.shards.entries, model.shards.entries
    for name, entry in ours.items():
        if name in theirs and theirs[name].shape != entry.shape:
            _wrong_shape(reference, model, name)
    missing, extra = [n for n in ours if n not in theirs], [n for n in theirs if n not in ours]
    if missing:
        tied = " (tied in one and not in the other? save both alike)" if any("lm_head" in n for n in missing) else ""
        raise DataError(
            f"{model.label} lacks {len(missing)} of {len(ours)} tensors of {reference.label}: {some(missing)}{tied}",
            missing=missing[:20],
        )
    if extra:
        raise DataError(
            f"{model.label} has {len(extra)} tensors that {reference.label} has not: {some(extra)}", extra=extra[:20]
        )


def _wrong_shape(reference: FullModel, model: FullModel, name: str) -> None:
    ours, theirs = reference.shards.entries[name].shape, model.shards.entries[name].shape
    if len(ours) == len(theirs) == 2 and ours[1] == theirs[1] and _is_vocabulary(name):
        raise DataError(
            f"{model.label} and {reference.label} have different vocabularies: {name} has {theirs[0]} and {ours[0]} "
            "rows; merge models of one tokenizer, or resize the embeddings of one first",
            tensor=name,
        )
    raise DataError(f"{name} has shape {theirs} in {model.label} and {ours} in {reference.label}", tensor=name)


def _is_vocabulary(name: str) -> bool:
    return any(word in name for word in ("embed", "lm_head", "wte", "shared", "output.weight"))


def _check_architecture(reference: FullModel, model: FullModel) -> None:
    ours, theirs = _json(reference.folder / CONFIG), _json(model.folder / CONFIG)
    if ours.get("model_type") and theirs.get("model_type") and ours["model_type"] != theirs["model_type"]:
        raise DataError(
            f"{model.label} is a {theirs['model_type']} and {reference.label} a {ours['model_type']}: only models of "
            "one architecture can be merged"
        )


def _check_tokens(reference: FullModel, model: FullModel) -> None:
    """Refuse tokenizers that give one number to two tokens; more tokens on one side are no contradiction."""
    ours, theirs = _tokens(reference.folder), _tokens(model.folder)
    wrong = next((i for i in sorted(ours.keys() & theirs.keys()) if ours[i] != theirs[i]), None)
    if wrong is not None:
        raise DataError(
            f"{model.label} and {reference.label} have different vocabularies: token {wrong} is {theirs[wrong]!r} and "
            f"{ours[wrong]!r}; merge models of one tokenizer"
        )


def _tokens(folder: Path) -> dict[int, str]:
    """Return token by number, of tokenizer.json; empty where there is none."""
    told = _json(folder / "tokenizer.json")
    vocabulary = told.get("model", {}).get("vocab") if isinstance(told.get("model"), dict) else None
    found: dict[int, str] = {}
    if isinstance(vocabulary, dict):
        found = {number: token for token, number in vocabulary.items() if isinstance(number, int)}
    elif isinstance(vocabulary, list):
        found = {number: str(entry[0]) for number, entry in enumerate(vocabulary) if isinstance(entry, list)}
    for token in told.get("added_tokens") or ():
        found[token["id"]] = token["content"]
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_types(shards: Shards, label: str, names: Sequence[str]) -> None:
    """Refuse quantised and other types that weights cannot be added up in."""
    for name in names:
        dtype = shards.entries[name].dtype
        if dtype not in FLOATS and DTYPES[dtype][0].is_floating_point:
            raise DataError(f"{label}: {name} is {dtype}; merging takes fp32, bf16 and fp16", tensor=name)


def check_differs(base: FullModel, model: FullModel, names: Sequence[str]) -> None:
    """Refuse a model whose every tensor equals the base's: its task vector is zero.

    A model that differs is told by the first tensors; only an equal one is read to the end.
    """
    if not any(_differs(base.shards, model.shards, name) for name in names):
        raise DataError(
            f"{model.label} equals the base {base.label} in all {len(names)} tensors that are merged: its task vector "
            "is zero; name the model that both were tuned from as base"
        )


def _differs(ours: Shards, theirs: Shards, name: str) -> bool:
    count = ours.entries[name].count
    same_type = ours.entries[name].dtype == theirs.entries[name].dtype
    for start in range(0, count, _PART):
        a, b = (shards.read(name, start, min(start + _PART, count)) for shards in (ours, theirs))
        if not (same_type and torch.equal(a.view(torch.uint8), b.view(torch.uint8))) and not torch.equal(
            a.float(), b.float()
        ):
            return True
    return False


def check_changes(adapter: Adapter) -> None:
    """Refuse an adapter whose factors are all zero: it was never trained."""
    for product in adapter.products.values():
        if bool(adapter.shards.read(product.left).any()) and bool(adapter.shards.read(product.right).any()):
            return
    if not adapter.full:
        raise DataError(f"{adapter.label}: its task vector is zero: in every layer B or A is 0 (untrained adapter)")


def check_copied(reference: FullModel, models: Sequence[FullModel], names: Sequence[str]) -> None:
    """Refuse tensors of whole numbers that differ: they cannot be merged, only copied."""
    for name in names:
        for model in models:
            if _differs(reference.shards, model.shards, name):
                raise DataError(
                    f"{name} holds whole numbers that differ between {reference.label} and {model.label}", tensor=name
                )
