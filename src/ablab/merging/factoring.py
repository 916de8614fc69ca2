"""Turns a merged task vector back into a LoRA adapter: the best product of the asked rank, by SVD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablab.contract.seeds import stream_seed
from ablab.merging.sources import Adapter

#: Up to this many rows or columns the whole decomposition is taken; above, a randomised one.
_WHOLE = 512
_OVERSAMPLING, _ITERATIONS = 10, 4


@dataclass(frozen=True, slots=True)
class Factors:
    """`left` (rows, rank) x `right` (rank, columns) stands for a matrix; `error` is the share of its norm lost."""

    left: Tensor
    right: Tensor
    error: float


def factor(matrix: Tensor, rank: int, *, seed: int) -> Factors:
    """Return the best approximation of a fp32 matrix by a product of a rank; both factors have equal norms.

    Large matrices are decomposed in a random subspace with power iterations (Halko et al., arXiv 0909.4061).
    """
    whole = float(matrix.double().square().sum())
    if whole == 0.0:
        return Factors(matrix.new_zeros(matrix.shape[0], rank), matrix.new_zeros(rank, matrix.shape[1]), 0.0)
    u, s, v = _decompose(matrix, min(rank, *matrix.shape), seed)
    root = s.sqrt()
    left, right = u * root, root[:, None] * v
    missing = rank - len(s)
    if missing > 0:
        left = torch.nn.functional.pad(left, (0, missing))
        right = torch.nn.functional.pad(right, (0, 0, 0, missing))
    kept = float(s.double().square().sum())
    return Factors(left.contiguous(), right.contiguous(), max(0.0, 1.0 - kept / whole) ** 0.5)


def _decompose(matrix: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    if min(matrix.shape) <= _WHOLE or rank + _OVERSAMPLING >= min(matrix.shape):
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        return u[:, :rank], s[:rank], v[:rank]
    drawn = np.random.Generator(np.random.SFC64(seed)).standard_normal(
        (matrix.shape[1], rank + _OVERSAMPLING), dtype=np.float32
    )
    basis, _ = torch.linalg.qr(matrix @ torch.from_numpy(drawn).to(matrix.device))
    for _ in range(_ITERATIONS):
        basis, _ = torch.linalg.qr(matrix.t() @ basis)
        basis, _ = torch.linalg.qr(matrix @ basis)
    u, s, v = torch.linalg.svd(basis.t() @ matrix, full_matrices=False)
    return basis @ u[:, :rank], s[:rank], v[:rank]


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
