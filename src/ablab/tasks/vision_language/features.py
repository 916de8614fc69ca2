"""Features of a frozen tower on disk, by picture: a cache stage writes them, phases read them instead of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ablab.contract.failure import DataError
from ablab.store.files import read_json, write_json
from ablab.tasks.vision_language.sections import Data, Model

#: Folder below a cache run's artifacts.
FOLDER = "features"


def signature(model: Model, data: Data) -> str:
    """Return what features of this model are: a phase takes only those of its own."""
    turned = " 2d-rope" if getattr(model, "rotary_2d", False) else ""
    return f"{model.tower.label} layer {model.feature_layer} cls {model.cls} {data.aspect}{turned}"


class FeatureFile:
    """Features by set and picture: one array (pictures, F, V), mapped into memory, and where each picture is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        info = read_json(folder / "features.json")
        self.tower: str = info["tower"]
        self._places: dict[str, dict[str, int]] = info["places"]
        self._array = np.load(folder / "features.npy", mmap_mode="r")

    def read(self, rows: str, name: str) -> npt.NDArray[np.float32]:
        """Return the features of a picture of a set, float32 (F, V).

        Raises:
            DataError: they were not cached.
        """
        place = self._places.get(rows, {}).get(name)
        if place is None:
            raise DataError(
                f"{self.folder}: no features of {name!r} of the set {rows}; add the set to the cache stage's mixture",
                file=str(self.folder),
            )
        return np.asarray(self._array[place], np.float32)


def write_features(
    folder: Path,
    pictures: Iterable[tuple[str, str]],
    *,
    compute: Callable[[list[tuple[str, str]]], npt.NDArray[np.float32]],
    tower: str,
    shape: tuple[int, int],
    dtype: str,
    batch: int,
    between: Callable[[int, int], None],
) -> int:
    """Write the features of pictures and return the bytes they take.

    Args:
        folder: gets features.npy and features.json.
        pictures: (set, name), each once.
        compute: features (n, F, V) of n pictures.
        tower: what computed them, for the reader to compare.
        shape: F and V.
        dtype: fp32 or fp16.
        batch: pictures at once.
        between: called with pictures done and all; may raise to stop.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(pictures)
    kind = np.float16 if dtype == "fp16" else np.float32
    array = np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=kind, shape=(len(wanted), *shape))
    places: dict[str, dict[str, int]] = {}
    for low in range(0, len(wanted), batch):
        between(low, len(wanted))
        part = wanted[low : low + batch]
        array[low : low + len(part)] = compute(part)
        for offset, (rows, name) in enumerate(part):
            places.setdefault(rows, {})[name] = low + offset
    array.flush()
    write_json(folder / "features.json", {"format": 1, "tower": tower, "places": places})
    return int(array.nbytes)
