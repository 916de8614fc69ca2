"""What a merge reads: a full model's tensors, or a LoRA adapter as task vectors upon a base.

An adapter's task vector of a weight is scaling x B A, formed for the rows that are asked for; what an adapter holds
besides (modules_to_save, biases) are full tensors. Merging products leaves no cross terms of one adapter's B with
another's A, which merging A and B by themselves does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ablab.contract.failure import DataError
from ablab.contract.registry import nearest
from ablab.merging.shards import ADAPTER, Entry, Shards, weight_files

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"


class Source(Protocol):
    """A model among those that are merged."""

    label: str
    folder: Path

    def delta(self, name: str, start: int, stop: int, base: Tensor | None) -> Tensor:
        """Return the task vector's entries, fp32, on the base's device; `base` holds the base's entries."""
        ...

    def value(self, name: str, start: int, stop: int, base: Tensor | None) -> Tensor:
        """Return the model's entries, fp32, in memory of their own."""
        ...

    def expect(self, name: str, start: int, stop: int) -> None:
        """Have the entries `start` to `stop` of a tensor read ahead."""
        ...

    def forget(self, name: str) -> None:
        """Let go of what was kept for a tensor."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class FullModel:
    """A model whose every tensor stands in its files.

    Args:
        label: what the user calls it.
        folder: with its weights, or one safetensors file.
        device: where blocks are computed.
    """

    def __init__(self, label: str, folder: Path, *, device: torch.device) -> None:
        self.label, self.folder, self.device = label, folder, device
        self.shards = Shards(weight_files(folder))

    def value(self, name: str, start: int, stop: int, base: Tensor | None = None) -> Tensor:
        """Return the model's entries, fp32."""
        return self.shards.read(name, start, stop).to(self.device, torch.float32)

    def delta(self, name: str, start: int, stop: int, base: Tensor | None) -> Tensor:
        """Return the model's entries minus the base's."""
        assert base is not None
        return self.value(name, start, stop).sub_(base)

    def expect(self, name: str, start: int, stop: int) -> None:
        """Have the entries `start` to `stop` of a tensor read ahead."""
        self.shards.expect(name, start, stop)

    def forget(self, name: str) -> None:
        """Keep nothing, as ever."""

    def close(self) -> None:
        """Close the files."""
        self.shards.close()


@dataclass(frozen=True, slots=True)
class Product:
    """Names of two factors whose product is a task vector: left (rows, rank) x right (rank, columns) x scaling."""

    left: str
    right: str
    scaling: float
    left_transposed: bool = False
    right_transposed: bool = False


class Adapter:
    """A LoRA adapter in peft's format, as task vectors upon the tensors of a base.

    Args:
        label: what the user calls it.
        folder: with adapter_config.json and adapter_model.safetensors.
        shapes: of the base's tensors by name; empty where there is no base.
        device: where blocks are computed.

    Raises:
        DataError: the adapter is of another kind, or does not fit the base.
    """

    def __init__(
        self, label: str, folder: Path, *, shapes: Mapping[str, tuple[int, ...]], device: torch.device
    ) -> None:
        self.label, self.folder, self._device = label, folder, device
        self.config = _adapter_config(folder)
        self.shards = Shards([folder / ADAPTER])
        self.products: dict[str, Product] = {}
        self.full: dict[str, str] = {}
        #: Factors as fp32 on the device, by name: small, and read once for each block otherwise.
        self._factors: dict[str, Tensor] = {}
        for name in self.shards.entries:
            self._place(name)
        if shapes:
            self._check(shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the task vector of a weight."""
        if name in self.full:
            return self.shards.entries[self.full[name]].shape
        product = self.products[name]
        left, right = self.shards.entries[product.left].shape, self.shards.entries[product.right].shape
        return (left[1] if product.left_transposed else left[0], right[0] if product.right_transposed else right[1])

    def delta(self, name: str, start: int, stop: int, base: Tensor | None) -> Tensor:
        """Return the task vector's entries; zeros for a tensor the adapter does not change."""
        rows = self._rows(name, start, stop)
        if name not in self.full:
            return torch.zeros(stop - start, device=self._device) if rows is None else rows
        value = self.shards.read(self.full[name], start, stop).to(self._device, torch.float32)
        if base is not None:
            value.sub_(base)
        # peft saves the matrix itself beside its factors where it is an embedding.
        return value if rows is None else value.add_(rows)

    def _rows(self, name: str, start: int, stop: int) -> Tensor | None:
        """Return the entries of the product; None where a tensor has none."""
        product = self.products.get(name)
        if product is None:
            return None
        left, right = self._factor(product.left), self._factor(product.right)
        left = left.t() if product.left_transposed else left
        right = right.t() if product.right_transposed else right
        columns = right.shape[1]
        low, high = start // columns, -(-stop // columns)
        rows = (left[low:high] @ right).mul_(product.scaling)
        return rows.view(-1)[start - low * columns : stop - low * columns]

    def value(self, name: str, start: int, stop: int, base: Tensor | None) -> Tensor:
        """Return the base's entries plus the task vector's."""
        assert base is not None
        return self.delta(name, start, stop, base).add_(base)

    def close(self) -> None:
        """Close the files."""
        self.shards.close()

    def expect(self, name: str, start: int, stop: int) -> None:
        """Read nothing ahead: factors are small."""

    def forget(self, name: str) -> None:
        """Let go of the factors of a tensor that is done."""
        product = self.products.get(name)
        if product is not None:
            self._factors.pop(product.left, None)
            self._factors.pop(product.right, None)

    def _factor(self, name: str) -> Tensor:
        found = self._factors.get(name)
        if found is None:
            shape = self.shards.entries[name].shape
            found = self.shards.read(name).to(self._device, torch.float32).view(shape)
            self._factors[name] = found
        return found

    def _place(self, name: str) -> None:
        """Find out which weight a tensor of the file belongs to."""
        module = name.removeprefix("base_model.model.")
        match = re.fullmatch(r"(.+)\.lora_(embedding_)?([AB])(?:\.[^.]+)?(?:\.weight)?", module)
        if match is None:
            if ".lora_" in module:
                where = f"{self.folder}: {name}"
                raise DataError(f"{where} is of a kind that cannot be merged", file=str(self.folder))
            self.full[module.replace(".base_layer.", ".")] = name
            return
        if match[3] == "A":
            return
        target, embedding = f"{match[1]}.weight", bool(match[2])
        kind = f".lora_{match[2] or ''}"
        first = f"{kind}A".join(name.rsplit(f"{kind}B", 1))
        if first not in self.shards.entries:
            raise DataError(f"{self.folder}: {name} has no {first} beside it", file=str(self.folder))
        rank = self.shards.entries[first].shape[0]
        scaling = self._scaling(match[1], rank)
        turned = embedding or bool(self.config.get("fan_in_fan_out"))
        # The weight itself is transposed (Conv1D, embeddings): (B A)ᵀ = Aᵀ Bᵀ.
        left, right = (first, name) if turned else (name, first)
        self.products[target] = Product(left, right, scaling, left_transposed=turned, right_transposed=turned)

    def _scaling(self, module: str, rank: int) -> float:
        alpha = self.config.get("lora_alpha", rank)
        for pattern, value in (self.config.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def _check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name in {**self.products, **self.full}:
            if name not in shapes:
                near = nearest(name, shapes)
                hint = f"; the nearest there is {near}" if near else ""
                raise DataError(f"{self.label}: changes {name}, which the base does not have{hint}", tensor=name)
            if len(shapes[name]) != 2 and name in self.products:
                raise DataError(
                    f"{self.label}: {name} is no matrix but {shapes[name]}; adapters of convolutions cannot be merged",
                    tensor=name,
                )
            if self.shape(name) != shapes[name]:
                raise DataError(
                    f"{self.label}: changes {name} of shape {self.shape(name)}, the base's is {shapes[name]}; the "
                    "adapter was trained on another model",
                    tensor=name,
                )


def _adapter_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}", file=str(path)) from error
    kind = config.get("peft_type", "LORA")
    if kind != "LORA" or config.get("use_dora"):
        raise DataError(f"{path}: is {'DoRA' if kind == 'LORA' else kind}; only LoRA can be merged", file=str(path))
    return dict(config)


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter and no model of its own."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / CONFIG).is_file()


def some(names: Iterable[str], most: int = 3) -> str:
    """Join names, the first few of many."""
    found = list(names)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def shapes_of(entries: Mapping[str, Entry]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor."""
    return {name: entry.shape for name, entry in entries.items()}
