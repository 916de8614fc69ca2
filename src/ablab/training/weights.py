"""Model weights as one safetensors file: tied tensors once, regenerable ones as a recipe.

A model whose frozen matrices can be made again from (initialisation, seed) may define

    regenerable() -> dict[str, recipe]           recipe: JSON value by state-dict name
    regenerate(name, recipe) -> Tensor           the very same tensor, bit for bit

Those tensors are left out of the file; their recipe and a digest stand in its metadata, and a tensor that cannot be
made again to the digest is an error, never a silently different model.

Frozen tensors of a model that was loaded by name (`ablab.models.source`) are left out in the same way: the file names
where they came from and keeps their digests, and the model it is loaded into has to hold the very same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ablab.contract.failure import ConfigError, DataError
from ablab.models.source import mark_overwritten, source_of, sources

_TIED, _REGENERABLE, _REFERENCED = "ablab.tied", "ablab.regenerable", "ablab.referenced"


@runtime_checkable
class Regenerable(Protocol):
    """A model some of whose tensors are functions of a recipe."""

    def regenerable(self) -> dict[str, Any]:
        """Return the recipe by tensor name, JSON values."""
        ...

    def regenerate(self, name: str, recipe: Any) -> Tensor:
        """Return the tensor that a recipe describes."""
        ...


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the model's state to one file, syncing left to the caller."""
    tensors = {name: value.detach() for name, value in model.state_dict().items()}
    recipes = _recipes(model, tensors)
    referenced = _referenced(model, tensors)
    left_out = recipes.keys() | referenced.keys()
    kept, tied = _untie({name: value for name, value in tensors.items() if name not in left_out})
    metadata = {"format": "pt", _TIED: json.dumps(tied), _REGENERABLE: json.dumps(recipes)}
    if referenced:
        metadata[_REFERENCED] = json.dumps(referenced)
    save_tensors(path, kept, metadata=metadata)


def save_tensors(path: Path, tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write tensors on any device to a safetensors file; an empty dictionary makes a valid empty file."""
    save_file({name: _plain(value) for name, value in tensors.items()}, path, metadata=metadata)
    _sort_metadata(path)
    # The library makes files that only their owner may read; a store is read by whom its folders let in.
    path.chmod(path.parent.stat().st_mode & 0o666)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a file in order: the library writes it in another order in each process.

    Equal weights must be equal files, byte for byte. The header keeps its length, so nothing else moves.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if len(header.get("__metadata__", ())) < 2:
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(text) == length:
            file.seek(8)
            file.write(text)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, on the CPU."""
    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary


@torch.no_grad()
def load_weights(path: Path, model: nn.Module, *, part: str | None = None) -> None:
    """Copy a file's weights into the model, in place and tensor by tensor.

    Args:
        path: the file.
        model: of the same names and shapes.
        part: dotted name of the sub-module that is copied alone; None is the whole model.

    Raises:
        DataError: a tensor is missing, is not the model's, has another shape, or cannot be made again.
    """
    prefix = "" if part is None else f"{part}."
    target = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(prefix)}
    with safe_open(path, framework="pt", device="cpu") as file:
        metadata = file.metadata() or {}
        tied: dict[str, str] = json.loads(metadata.get(_TIED, "{}"))
        recipes: dict[str, Any] = json.loads(metadata.get(_REGENERABLE, "{}"))
        referenced: dict[str, Any] = json.loads(metadata.get(_REFERENCED, "{}"))
        found = {*file.keys(), *recipes, *tied, *referenced}
        _check_names(path, set(target), {name for name in found if name.startswith(prefix)}, part=part)
        for name, tensor in target.items():
            if name in referenced:
                _check_same(path, name, tensor, referenced[name])
            elif name in recipes:
                _copy(path, name, tensor, _regenerate(path, model, name, recipes[name]))
            else:
                _copy(path, name, tensor, file.get_tensor(tied.get(name, name)))
    mark_overwritten(model, set(target) - set(referenced))


def _copy(path: Path, name: str, target: Tensor, value: Tensor) -> None:
    if target.shape != value.shape:
        raise DataError(
            f"{path}: {name} has shape {tuple(value.shape)}, the model expects {tuple(target.shape)}",
            file=str(path),
            tensor=name,
        )
    target.copy_(value)


def _check_names(path: Path, wanted: set[str], found: set[str], *, part: str | None) -> None:
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if missing or extra:
        what = "does not fit the model" if part is None else f"its {part} is another one"
        raise DataError(
            f"{path}: {what}; missing {_some(missing)}, not in the model {_some(extra)}",
            file=str(path),
            missing=missing[:20],
            extra=extra[:20],
        )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nothing"


def _untie(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors to store and, for those that are another one's memory, the other's name."""
    first: dict[tuple[Any, ...], str] = {}
    kept, tied = {}, {}
    for name, value in tensors.items():
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and place in first:
            tied[name] = first[place]
        else:
            first[place] = name
            kept[name] = value
    return kept, tied


def _plain(value: Tensor) -> Tensor:
    """Return the tensor with memory of its own, which the format wants."""
    value = value.detach()
    if value.untyped_storage().nbytes() != value.numel() * value.element_size():
        return value.clone(memory_format=torch.contiguous_format)
    return value.contiguous()


def _recipes(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if not isinstance(model, Regenerable):
        return {}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = {}
    for name, recipe in model.regenerable().items():
        if name not in tensors:
            raise ConfigError(f"the model calls {name!r} regenerable but has no such tensor")
        if name not in trained:
            found[name] = {"recipe": recipe, "digest": digest(tensors[name])}
    return found


def _referenced(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return source and digest of the frozen tensors that are what the model was built with."""
    known = list(sources(model))
    if not known:
        return {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    trained = {p.data_ptr() for p in parameters.values() if p.requires_grad}
    found = {}
    for name, value in tensors.items():
        # The state of a 4-bit matrix stands in entries of its own, named after it; other buffers may have changed.
        owner = name if name in parameters else next((n for n in _above(name) if n in parameters), None)
        if owner is None or parameters[owner].data_ptr() in trained:
            continue
        source = source_of(owner, known)
        if source is not None:
            place = (value.data_ptr(), value._version)
            cached = source.digests.get(name)
            if cached is None or cached[:2] != place:
                cached = source.digests[name] = (*place, digest(value))
            found[name] = {"source": source.text, "digest": cached[2]}
    return found


def _above(name: str) -> Iterable[str]:
    """Yield the names above a dotted one, nearest first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _check_same(path: Path, name: str, tensor: Tensor, entry: dict[str, Any]) -> None:
    if digest(tensor) != entry["digest"]:
        raise DataError(
            f"{path}: {name} was left out as that of {entry['source']}, but the model at hand holds another one; "
            "load the same model and revision",
            file=str(path),
            tensor=name,
        )


def _regenerate(path: Path, model: nn.Module, name: str, entry: dict[str, Any]) -> Tensor:
    if not isinstance(model, Regenerable):
        raise DataError(f"{path}: {name} is stored as a recipe, and the model cannot make it again", file=str(path))
    value = model.regenerate(name, entry["recipe"])
    if digest(value) != entry["digest"]:
        raise DataError(
            f"{path}: {name} made again from {entry['recipe']} is not the tensor that was saved; "
            f"the version of torch may draw other numbers: use the one in the run's environment.json",
            file=str(path),
            tensor=name,
        )
    return value


def digest(tensor: Tensor) -> str:
    """Return a hash of a tensor's bytes."""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(data.tobytes(), digest_size=16).hexdigest()
