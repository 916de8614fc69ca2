"""The best approximation of a matrix by a product of two thin ones: what a low-rank adapter can hold of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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
