"""The cache stage: the features of a tower that no later stage trains, computed once and read by many phases.

What it will take on disk is told before the first picture is looked at, and a disk that could not hold it stops the
stage there. Which features they are (tower, layer, CLS rule, framing) is written beside them; a phase that wants others
refuses them.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError, DiskFullError, StopRequested
from ablab.contract.order import Order
from ablab.contract.result import Outcome, Table
from ablab.contract.units import size as size_text
from ablab.data.images import Framing, normalise
from ablab.models.hub import load_model
from ablab.models.vision.rotary2d import add_rotary_2d
from ablab.models.vision.tower import Tower
from ablab.store.inputs import reachable
from ablab.tasks.vision_language.config import SPEC, Cache
from ablab.tasks.vision_language.features import FOLDER, signature, write_features
from ablab.tasks.vision_language.sections import Data, Model
from ablab.tasks.vision_language.sets import RowSet, open_sets
from ablab.tasks.vision_language.task import VisionLanguage
from ablab.training.precision import autocast, resolve

#: Threads that decode pictures ahead of the tower.
_DECODERS = 2
#: Disk that stays free.
_SPARE = 1 << 28


def cache_features(order: Order, context: Context) -> Outcome:
    """Write the features of every picture of the mixture's sets, each once.

    Raises:
        ConfigError: features of this model cannot be cached.
        DiskFullError: they would not fit.
    """
    sections: dict[str, Any] = {name: SPEC.sections[name].model_validate(raw) for name, raw in order.sections.items()}
    parameters = Cache.model_validate(order.parameters)
    model, data = sections["model"], sections["data"]
    assert isinstance(model, Model) and isinstance(data, Data)
    check_cacheable(model, data)
    with context.time("start-up"):
        code = VisionLanguage(
            sections, inputs=order.inputs, study_folder=order.study_folder, parameters=parameters,
            revisions=order.revisions,
        )  # fmt: skip
        device = torch.device(context.numerics.device)
        tower = _tower(order, model, device)
        sets = open_sets(code.artifacts, parameters.mixture, study_folder=order.study_folder)
        pictures = [(name, picture) for name, rows in sets.items() for picture in _pictures(rows)]
    size = len(pictures) * tower.tokens * tower.width * (2 if parameters.dtype == "fp16" else 4)
    context.event("message", level="info", text=f"features of {len(pictures)} pictures take {size_text(size)}")
    free = shutil.disk_usage(context.artifacts).free
    if size + _SPARE > free:
        raise DiskFullError(f"features take {size_text(size)}, {size_text(free)} are free; keep them in fp16")
    written = _write(context, parameters, tower, sets, pictures, code.framing, device, signature(model, data))
    counts = {name: sum(one == name for one, _ in pictures) for name in sets}
    table = Table(name="pictures", columns=("set", "pictures"), rows=tuple(counts.items()))
    facts = {
        "cache.pictures": len(pictures),
        "cache.bytes": written,
        "cache.shape": [tower.tokens, tower.width],
        "cache.sets": [list(row) for row in table.rows],
    }
    return Outcome(facts=facts, artifacts={"features": f"artifacts/{FOLDER}/features.npy"})


def check_cacheable(model: Model, data: Data) -> None:
    """Raise ConfigError for a model whose tower's features are no function of the picture alone, or of one layer."""
    if model.tower.config is not None:
        raise ConfigError("model.tower is built random: its features are worth no cache; name a tower or a stage")
    for name, given in (("model.pyramid", getattr(model, "pyramid", None)), ("data.tiles", _tiles(data))):
        if given is not None:
            raise ConfigError(f"{name} is set: features are cached of whole pictures and one layer only")


def _tiles(data: Data) -> int | None:
    tiles = getattr(data, "tiles", 1)
    return None if tiles == 1 else int(tiles)


def _tower(order: Order, model: Model, device: torch.device) -> Tower:
    places: dict[str, Any] = {
        "inputs": reachable(order.inputs),
        "study_folder": order.study_folder,
        "revisions": order.revisions,
    }
    vision = load_model(model.tower, kind="vision", role="tower", **places)
    if getattr(model, "rotary_2d", False):
        add_rotary_2d(vision)
    tower = Tower(vision, layer=model.feature_layer, cls=model.cls, label=f"tower {model.tower.label}")
    return tower.requires_grad_(False).eval().to(device)


def _pictures(rows: RowSet) -> list[str]:
    """Return the names of a set's pictures, each once, in the order of the rows."""
    found: dict[str, None] = {}
    for row in np.flatnonzero(rows.images):
        found.update(dict.fromkeys(rows.conversation(int(row)).images))
    return list(found)


def _write(
    context: Context,
    parameters: Cache,
    tower: Tower,
    sets: dict[str, RowSet],
    pictures: list[tuple[str, str]],
    framing: Framing,
    device: torch.device,
    label: str,
) -> int:
    precision = context.numerics.precision or resolve("auto", device)

    def frame(picture: tuple[str, str]) -> np.ndarray:
        rows, name = picture
        return framing.frame(sets[rows].source.open(name))

    def between(done: int, total: int) -> None:
        context.progress(done, total, unit="pictures")
        if context.stop_requested():
            raise StopRequested(f"stopped after {done} of {total} pictures")

    with ThreadPoolExecutor(_DECODERS, "ablab-decode") as pool:

        def compute(part: list[tuple[str, str]]) -> np.ndarray:
            with context.time("data"):
                pixels = torch.from_numpy(np.stack(list(pool.map(frame, part))))
            with context.time("forward-backward"), torch.no_grad(), autocast(precision, device):
                found: np.ndarray = tower(normalise(pixels.to(device), framing)).float().cpu().numpy()
            return found

        return write_features(
            context.artifacts / Path(FOLDER),
            pictures,
            compute=compute,
            tower=label,
            shape=(tower.tokens, tower.width),
            dtype=parameters.dtype,
            batch=parameters.batch,
            between=between,
        )
