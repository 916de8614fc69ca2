"""An index as files: `index.json` and shards of at most 64 MiB or so in safetensors, written and read one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ablab.contract.failure import AblabError, ConfigError, DataError
from ablab.models.search.codes import Residual, to_eight_bit
from ablab.models.search.shards import (
    TILE,
    AnyShard,
    BoundedShard,
    EightBitShard,
    ExactShard,
    ResidualShard,
    fill_masked,
    from_tiles,
    to_tiles,
)
from ablab.store.files import read_json, temporary_name, write_json

Kind = Literal["exact", "8-bit", "residual"]
FORMAT = 1
INDEX, CODEC = "index.json", "codec.safetensors"
#: Bytes of the vectors of a shard in fp32, and its passages: their scores with a group of queries are in memory too.
SHARD_BYTES, SHARD_PASSAGES = 64 << 20, 8192
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class IndexWriter:
    """Writes an index as batches of passages come; use it in a `with`, the index exists when that ends well.

    Args:
        folder: where; a former index there is replaced file by file.
        kind: exact, 8-bit or residual.
        dtype: fp32 or bf16, of an exact index.
        bounds: store 8-bit codes beside exact vectors, by which a search leaves out most products (it stays exact).
        codec: of a residual index.
        facts: what `index.json` says besides.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        kind: Kind = "exact",
        dtype: Literal["fp32", "bf16"] = "fp32",
        bounds: bool | None = None,
        codec: Residual | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if kind == "residual" and codec is None:
            raise ConfigError("a residual index needs a codec; ablab.models.search.compress learns one")
        if dtype not in _TYPES:
            raise ConfigError(f"dtype {dtype!r} of an index; expected {' or '.join(_TYPES)}")
        self.folder, self.kind, self.dtype = Path(folder), kind, dtype
        self._bounds = (dtype == "bf16") if bounds is None else bounds
        self._codec, self._facts = codec, dict(facts or {})
        self._held: list[Tensor] = []
        self._shards: list[dict[str, Any]] = []
        self._shape: tuple[int, int] | None = None
        self.passages = 0

    def __enter__(self) -> IndexWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / INDEX).unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()

    def add(self, passages: Tensor, mask: Tensor | None = None) -> None:
        """Add passages (n, P, D), or (n, D) for one vector each; mask is bool (n, P).

        Raises:
            DataError: a vector is not finite, or a passage has no vector that counts.
            ConfigError: another shape than before.
        """
        passages = passages.detach().cpu().float()
        passages = passages[:, None] if passages.ndim == 2 else passages
        shape = (passages.size(1), passages.size(2))
        if self._shape not in (None, shape):
            raise ConfigError(f"passages of shape {shape} follow passages of shape {self._shape} in one index")
        self._shape = shape
        if not torch.isfinite(passages).all():
            row = int((~passages.isfinite()).flatten(1).any(1).nonzero()[0])
            raise DataError(f"the vectors of passage {self.passages + row} are not finite", row=self.passages + row)
        if mask is not None:
            try:
                passages = fill_masked(passages, mask.cpu())
            except ValueError as error:
                raise DataError(f"{error} (from passage {self.passages} on)") from error
        self._held.append(passages)
        self.passages += len(passages)
        a_shard = shard_passages(*shape)
        while sum(map(len, self._held)) >= a_shard:
            together = torch.cat(self._held)
            self._write(together[:a_shard])
            self._held = [together[a_shard:]]

    def _write(self, passages: Tensor) -> None:
        name = f"shard-{len(self._shards):05d}.safetensors"
        target = self.folder / name
        temporary = temporary_name(target)
        save_file(self._tensors(passages), temporary)
        temporary.replace(target)
        self._shards.append({"file": name, "passages": len(passages), "bytes": target.stat().st_size})

    def _tensors(self, passages: Tensor) -> dict[str, Tensor]:
        if self._codec is not None:
            nearest, packed = self._codec.encode(to_tiles(passages))
            return {"nearest": nearest, "packed": packed}
        stored: dict[str, Tensor] = {}
        if self.kind == "exact":
            exact = passages.to(_TYPES[self.dtype])
            # What is picked out one by one lies passage by passage, what is multiplied as a whole lies in tiles.
            stored["vectors"] = exact.contiguous() if self._bounds else to_tiles(exact)
            passages = exact.float()
        if self.kind == "8-bit" or self._bounds:
            coded = to_eight_bit(passages)
            stored |= {"codes": to_tiles(coded.codes), "scale": coded.scale}
            if self.kind == "exact":
                stored |= {"error": coded.error, "norm": coded.norm}
        return stored

    def _finish(self) -> None:
        together = torch.cat(self._held) if self._held else torch.zeros(0)
        if len(together):
            self._write(together)
        if self._shape is None:
            raise ConfigError(f"{self.folder}: no passage was added to the index")
        if self._codec is not None:
            save_file(self._codec.tensors(), self.folder / CODEC)
        vectors, width = self._shape
        content = {
            "format": FORMAT,
            "kind": self.kind,
            "dtype": self.dtype if self.kind == "exact" else None,
            "bounds": self.kind == "exact" and self._bounds,
            "passages": self.passages,
            "vectors": vectors,
            "width": width,
            "tile": TILE,
            "codec": self._codec.settings() if self._codec is not None else None,
            "shards": self._shards,
            "bytes": sum(shard["bytes"] for shard in self._shards),
            "facts": self._facts,
        }
        write_json(self.folder / INDEX, content)


def shard_passages(vectors: int, width: int) -> int:
    """Return the passages of a shard: whole tiles of about `SHARD_BYTES` in fp32, and no more than `SHARD_PASSAGES`."""
    return max(1, min(SHARD_BYTES // (4 * vectors * width * TILE), SHARD_PASSAGES // TILE)) * TILE


class Index:
    """An index on disk; shards are read as they are searched.

    Args:
        folder: its folder.
        content: what `index.json` says.
    """

    def __init__(self, folder: Path, content: Mapping[str, Any]) -> None:
        self.folder, self.content = folder, content
        self.kind: Kind = content["kind"]
        self.passages, self.vectors, self.width = (int(content[name]) for name in ("passages", "vectors", "width"))
        self.bytes = int(content["bytes"])
        self.bounded: bool = content["bounds"]
        self._codec: Residual | None = None

    def shards(self, *, device: torch.device | str = "cpu") -> Iterator[AnyShard]:
        """Yield the shards in order.

        Raises:
            DataError: one is missing or damaged; the message names it.
        """
        device = torch.device(device)
        for entry in self.content["shards"]:
            yield self._shard(entry, device)

    def _shard(self, entry: Mapping[str, Any], device: torch.device) -> AnyShard:
        count = int(entry["passages"])
        # Bounds pay where bytes are multiplied faster than vectors: on processors with the instruction for it.
        bounded = self.bounded and device.type == "cpu" and torch.cpu._is_vnni_supported()
        names = {
            "exact": ("vectors", "codes", "scale", "error", "norm") if bounded else ("vectors",),
            "8-bit": ("codes", "scale"),
            "residual": ("nearest", "packed"),
        }[self.kind]
        path = self.folder / entry["file"]
        found = _read(path, names, device)
        if self.kind == "residual":
            return ResidualShard(self.codec(device), found["nearest"], found["packed"], count)
        if self.kind == "8-bit":
            return EightBitShard(found["codes"], found["scale"], count)
        if bounded:
            return BoundedShard(found["vectors"], found["codes"], found["scale"], found["error"], found["norm"], count)
        vectors = to_tiles(found["vectors"]) if self.bounded else found["vectors"]
        if vectors.dtype == torch.bfloat16 and device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
            vectors = vectors.float()
        return ExactShard(vectors, count)

    def passages_by_shard(self) -> Iterator[Tensor]:
        """Yield the vectors of an exact index, fp32 (n, P, D), shard by shard.

        Raises:
            ConfigError: the index is compressed.
        """
        if self.kind != "exact":
            raise ConfigError(f"{self.folder}: an index of kind {self.kind} has no exact vectors; use the exact one")
        for entry in self.content["shards"]:
            found = _read(self.folder / entry["file"], ("vectors",), torch.device("cpu"))
            vectors = found["vectors"]
            yield (vectors if self.bounded else from_tiles(vectors, int(entry["passages"]))).float()

    def codec(self, device: torch.device) -> Residual:
        """Return the codec of a residual index."""
        if self._codec is None or self._codec.centroids.device != device:
            found = _read(self.folder / CODEC, ("centroids", "cuts", "levels"), device)
            settings = self.content["codec"]
            self._codec = Residual(**found, bits=int(settings["bits"]), unit=bool(settings["unit"]))
        return self._codec

    def note(self, **facts: Any) -> None:
        """Add facts to `index.json`, for example the loss of a compressed index."""
        self.content = {**self.content, "facts": {**self.content["facts"], **facts}}
        write_json(self.folder / INDEX, self.content)


def _read(path: Path, names: tuple[str, ...], device: torch.device) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: missing or damaged ({error}); make the index again", file=str(path)) from error


def open_index(folder: str | os.PathLike[str]) -> Index:
    """Open an index.

    Raises:
        ConfigError: there is none, or one of a newer format.
        DataError: its description is damaged, or a shard is missing or cut.
    """
    path = Path(folder)
    if not (path / INDEX).is_file():
        raise ConfigError(f"{path}: no index here (no {INDEX}); name the folder that an index stage wrote")
    try:
        content = read_json(path / INDEX)
        if content["format"] != FORMAT or content["tile"] != TILE:
            raise ConfigError(f"{path}: an index of format {content['format']}, this version reads {FORMAT}")
        index = Index(path, content)
        for entry in content["shards"]:
            file = path / entry["file"]
            if file.stat().st_size != entry["bytes"]:
                raise DataError(f"{file}: not the size it had; make the index again", file=str(file))
    except AblabError:
        raise
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{path / INDEX}: damaged ({error}); make the index again", file=str(path / INDEX)) from error
    return index
