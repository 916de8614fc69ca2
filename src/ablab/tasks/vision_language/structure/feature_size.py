"""How much disk the features of a tower will take, told before anything is computed; no torch.

Pictures are counted from the prepared sets where they are there, else from what the study says of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ablab.contract.task import Before
from ablab.tasks.vision_language.config import Cache
from ablab.tasks.vision_language.sections import Data, Model
from ablab.tasks.vision_language.structure.sizes import TOWERS, architecture, patches

_BYTES = {"fp32": 4, "fp16": 2}


def feature_bytes(model: Model, data: Data, parameters: Cache, before: Sequence[Before]) -> int | None:
    """Return the bytes that a cache stage writes, at most (a picture of two rows is cached once); None if unknown.

    Args:
        model, data, parameters: of the stage.
        before: the runs it reads: the prepared sets with their facts, and the stage that builds the tower.
    """
    shape = _shape(model, before)
    facts = next((one.facts for one in before if one.kind == "prepare"), {})
    counts = [_pictures(name, data, facts) for name in parameters.mixture]
    if shape is None or None in counts:
        return None
    return sum(count or 0 for count in counts) * shape * _BYTES[parameters.dtype]


def _shape(model: Model, before: Sequence[Before]) -> int | None:
    """Return the numbers that a picture becomes: tokens times width."""
    config = architecture(model.tower, TOWERS)
    if model.tower.stage is not None:
        built = next((one for one in before if model.tower.stage in (one.stage, one.stage.rpartition(".")[2])), None)
        config = getattr(built.parameters, "architecture", None) if built is not None else None
    if config is None or "image_size" not in config:
        return None
    kept = 1 if model.cls == "keep" and not str(config.get("model_type", "")).startswith("siglip") else 0
    return (patches(config) + kept) * int(config["hidden_size"])


def _pictures(name: str, data: Data, facts: Mapping[str, Any]) -> int | None:
    found = facts.get(f"images.{name}")
    if isinstance(found, int):
        return found
    if name in data.rendered:
        return data.rendered[name].rows
    own = data.own.get(name)
    if own is not None:
        return own.limit
    sizes = data.generated
    if sizes is None or name == "texts":
        return 0
    return sizes.val if name == "val" else sizes.captions if name.startswith("captions") else sizes.instruct
