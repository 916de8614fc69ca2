"""Spherical interpolation (SLERP) of two tensors along the arc between their directions; one angle a tensor.

Shoemake, "Animating rotation with quaternion curves", 1985. Where the tensors are (anti)parallel there is no arc, and
where one is zero no angle: both are interpolated linearly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Cosine from which two tensors count as parallel.
PARALLEL = 0.9995
#: Norm below which a tensor has no direction.
_TINY = 1e-8


@dataclass(frozen=True, slots=True)
class Products:
    """Dot products of two tensors with each other and themselves, in fp64; those of parts add up."""

    both: float = 0.0
    first: float = 0.0
    second: float = 0.0

    def __add__(self, other: Products) -> Products:
        return Products(self.both + other.both, self.first + other.first, self.second + other.second)


def products(first: Tensor, second: Tensor) -> Products:
    """Return the dot products of two fp32 tensors."""
    a, b = first.flatten(), second.flatten()
    return Products(float(torch.dot(a, b)), float(torch.dot(a, a)), float(torch.dot(b, b)))


def coefficients(t: float, found: Products) -> tuple[float, float]:
    """Return the factors of the first and the second tensor at `t` from 0 (first) to 1 (second)."""
    norms = math.sqrt(found.first), math.sqrt(found.second)
    # Without a direction the cosine is 0, as mergekit has it.
    scale = (norms[0] if norms[0] > _TINY else 1.0) * (norms[1] if norms[1] > _TINY else 1.0)
    cosine = max(-1.0, min(1.0, found.both / scale))
    if abs(cosine) > PARALLEL:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def slerp(first: Tensor, second: Tensor, factors: tuple[float, float]) -> Tensor:
    """Return the sum of two fp32 tensors times their `coefficients`, in place on the first."""
    return first.mul_(factors[0]).add_(second, alpha=factors[1])
