"""One checkpoint: a folder that is valid as a whole or does not count.

    checkpoints/step-00000120/   model.safetensors  optimizer.safetensors  state.json  manifest.json

It is written under another name, synced and renamed, and its manifest holds size and checksum of every file. Nothing
is unpickled. Which checkpoints are written and kept is `retention`'s business.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ablab.contract.failure import AblabError, DataError
from ablab.store.files import TEMPORARY, atomic_folder, check_format, read_json, write_json
from ablab.store.manifest import check_manifest, write_manifest
from ablab.training.weights import load_tensors, load_weights, save_tensors, save_weights

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
FORMAT = 1
_PREFIX = "step-"


def name_of(step: int) -> str:
    """Return the folder name of a step's checkpoint."""
    return f"{_PREFIX}{step:08d}"


def step_of(name: str) -> int:
    """Return the step a checkpoint's folder name tells."""
    return int(name.removeprefix(_PREFIX))


def save(folder: Path, *, model: nn.Module, optimizer: Mapping[str, Tensor], state: Mapping[str, Any]) -> int:
    """Write a checkpoint to `folder`, replacing what is there, and return its bytes.

    Args:
        folder: its final name, below `checkpoints/`.
        model: the model, on any device.
        optimizer: tensors of the optimizer's state by name.
        state: JSON values of the loop.

    Raises:
        DiskFullError: no space left; nothing of the checkpoint remains.
    """
    with atomic_folder(folder, replace=True) as temporary:
        save_weights(temporary / MODEL, model)
        save_tensors(temporary / OPTIMIZER, dict(optimizer))
        write_json(temporary / STATE, {"format": FORMAT, **state}, sync=False)
        write_manifest(temporary)
    return sum(file.stat().st_size for file in folder.iterdir())


def load(folder: Path, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copy a checkpoint's weights into `model`; return the optimizer's tensors (CPU) and the loop's state."""
    load_weights(folder / MODEL, model)
    return load_tensors(folder / OPTIMIZER), read_state(folder)


def load_model(folder: Path, model: nn.Module) -> None:
    """Copy only the weights of a valid checkpoint into `model`.

    Raises:
        DataError: the checkpoint is damaged or does not fit the model.
    """
    problems = check_manifest(folder)
    if problems:
        raise DataError(f"checkpoint {folder} is damaged: {problems[0]}", file=str(folder), problems=problems)
    load_weights(folder / MODEL, model)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the loop's state in a checkpoint."""
    content = read_json(folder / STATE)
    check_format(content, folder / STATE, reads=(FORMAT,))
    del content["format"]
    return dict(content)


def newest_first(checkpoints: Path) -> Iterator[Path]:
    """Yield the checkpoint folders there are, damaged ones included, by descending step."""
    if not checkpoints.is_dir():
        return
    names = [entry.name for entry in checkpoints.iterdir() if entry.is_dir() and _is_name(entry.name)]
    for name in sorted(names, key=step_of, reverse=True):
        yield checkpoints / name


def _is_name(name: str) -> bool:
    return name.startswith(_PREFIX) and name.removeprefix(_PREFIX).isdigit()


def latest_valid(checkpoints: Path, *, report: Callable[[str], None] = lambda _: None) -> Path | None:
    """Return the newest checkpoint that is whole and can be resumed from; damaged ones are reported and passed over."""
    for folder in newest_first(checkpoints):
        problems = damage(folder)
        if not problems and (folder / OPTIMIZER).is_file():
            return folder
        if problems:
            report(f"checkpoint {folder.name} is damaged and was passed over: {problems[0]}")
    return None


def damage(folder: Path) -> list[str]:
    """Return what is wrong with a checkpoint's files; empty when it is valid."""
    try:
        return check_manifest(folder)
    except (AblabError, OSError) as error:
        return [str(error)]


def sweep(checkpoints: Path) -> None:
    """Remove what interrupted writes and removals left behind; only while the run's claim is held."""
    if checkpoints.is_dir():
        for entry in checkpoints.iterdir():
            if entry.name.startswith(TEMPORARY):
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
