"""Turns a merged task vector back into a LoRA adapter: the best product of the asked rank, by SVD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablab.contract.seeds import stream_seed
from ablab.merging.sources import Adapter
from ablab.models.low_rank import factor


class Collector:
    """Takes merged task vectors block by block and factors each when it is whole; has the shape of a writer.

    Args:
        shapes: of the task vectors by weight.
        like: an adapter that says which weights are stored transposed.
        rank: of the result.
        seed: for large decompositions.
        device: where matrices are decomposed.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], like: list[Adapter], *, rank: int, seed: int, device: torch.device
    ) -> None:
        self._shapes, self._like, self._rank, self._seed, self._device = shapes, like, rank, seed, device
        self._open: dict[str, Tensor] = {}
        self.tensors: dict[str, Tensor] = {}
        self.errors: dict[str, float] = {}

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Take the entries from `start` of a task vector."""
        if name not in self._open:
            self._open[name] = torch.zeros(self._shapes[name], device=self._device)
        self._open[name].view(-1)[start : start + values.numel()] = values

    def write_bytes(self, name: str, position: int, data: np.ndarray) -> None:
        """Refuse: an adapter copies nothing."""
        raise AssertionError(f"{name} cannot be copied into an adapter")

    def close_tensor(self, name: str) -> None:
        """Factor a task vector that is whole."""
        product = next(each.products[name] for each in self._like if name in each.products)
        matrix = self._open.pop(name)
        turned = product.left_transposed
        found = factor(matrix.t() if turned else matrix, self._rank, seed=stream_seed(self._seed, f"svd/{name}"))
        module = name.removesuffix(".weight")
        embedding = ".lora_embedding_" in product.left
        kind, end = ("lora_embedding_", "") if embedding else ("lora_", ".weight")
        self.tensors[f"base_model.model.{module}.{kind}A{end}"] = found.right.cpu()
        self.tensors[f"base_model.model.{module}.{kind}B{end}"] = found.left.cpu()
        self.errors[name] = found.error


def adapter_config(first: Mapping[str, Any], *, rank: int, weights: list[str]) -> dict[str, Any]:
    """Return the configuration of the factored adapter: the first one's, with the new rank and a scaling of 1."""
    modules = sorted(name.removesuffix(".weight") for name in weights)
    own = {
        "peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": modules, "rank_pattern": {},
        "alpha_pattern": {}, "use_rslora": False, "use_dora": False, "bias": "none", "modules_to_save": None,
        "inference_mode": True, "layers_to_transform": None, "layers_pattern": None,
    }  # fmt: skip
    return {**first, **own}
