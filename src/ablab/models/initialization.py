"""Initial weights, each tensor drawn from a random stream of its own name.

Because a tensor's stream depends on nothing but the seed and its name, arms that differ in one tensor start equal in
all others, and a frozen tensor can be stored as its initialisation and seed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ablab.contract.seeds import stream_seed


def named_generator(seed: int, name: str) -> torch.Generator:
    """Return the CPU generator of the sub-stream of `initialisation` that belongs to the tensor `name`."""
    return torch.Generator().manual_seed(stream_seed(seed, f"initialisation/{name}"))


def normal(shape: tuple[int, ...], *, std: float, generator: torch.Generator) -> Tensor:
    """Return N(0, std²) in fp32."""
    return torch.randn(shape, generator=generator) * std


def orthogonal_rows(rows: int, columns: int, *, generator: torch.Generator) -> Tensor:
    """Return a Haar-distributed (rows, columns) matrix with orthonormal rows, W Wᵀ = I.

    Reduced QR of a normal (columns, rows) matrix, with the signs of R's diagonal folded in, since LAPACK's choice of
    signs alone is not Haar (Mezzadri 2007, arXiv math-ph/0609050). Computed in fp64, so that the fp32 result does not
    depend on the BLAS or its threads in practice.

    Raises:
        ValueError: when rows exceed columns.
    """
    if rows > columns:
        raise ValueError(f"{rows} rows of {columns} columns cannot be orthonormal")
    gaussian = torch.randn(columns, rows, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian, mode="reduced")
    haar: Tensor = q * torch.sign(torch.diagonal(r))
    return haar.T.contiguous().float()


def headwise_orthogonal(width: int, heads: int, *, generator: torch.Generator) -> Tensor:
    """Return a (width, width) matrix of `heads` stacked blocks of orthonormal rows, drawn independently.

    Rows of different heads are not orthogonal to each other: the matrix as a whole is not orthogonal.
    """
    return torch.cat([orthogonal_rows(width // heads, width, generator=generator) for _ in range(heads)])
