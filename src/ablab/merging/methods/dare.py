"""DARE (arXiv 2311.03099): drop entries of a task vector at random, and divide what stays by the chance to stay.

The chance is a multiple of 2^-16: 16 random bits an entry decide. The divisor is that very chance, so that the
expectation of an entry is the entry.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ablab.contract.seeds import stream_seed

#: Entries whose bits come from one generator; part of what a seed means.
GRAIN = 1 << 16
_LEVELS = 1 << 16


def draw_bits(seed: int, name: str, model: int, start: int, stop: int) -> np.ndarray:
    """Return 16 random bits for the entries `start` to `stop` of a tensor, uint16.

    They depend on seed, tensor name, position of the model and of the entry, and on nothing else.
    """
    parts = []
    for grain in range(start // GRAIN, -(-stop // GRAIN)):
        low, high = max(start - grain * GRAIN, 0), min(stop - grain * GRAIN, GRAIN)
        generator = np.random.SFC64(stream_seed(seed, f"merge/{name}", model, grain))
        parts.append(generator.random_raw(-(-high // 4)).view(np.uint16)[low:high])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def chance(density: float) -> float:
    """Return the chance to stay that stands for a density: the nearest multiple of 2^-16, never 0."""
    return max(1, round(density * _LEVELS)) / _LEVELS


def drop(delta: Tensor, bits: np.ndarray, density: float) -> Tensor:
    """Set entries to 0 whose bits say so, in place and without rescaling; the chance to stay is `chance(density)`.

    Args:
        delta: fp32 task vector, contiguous.
        bits: uint16, as many.
        density: chance to stay.
    """
    level = round(chance(density) * _LEVELS)
    if level >= _LEVELS:
        return delta
    stays = bits < np.uint16(level)
    return multiply(delta, stays)


def multiply(delta: Tensor, stays: np.ndarray) -> Tensor:
    """Multiply a contiguous fp32 tensor with a boolean mask of its entries, in place."""
    if delta.device.type != "cpu":
        return delta.view(-1).mul_(torch.from_numpy(stays).to(delta.device)).view(delta.shape)
    flat = delta.view(-1).numpy()
    np.multiply(flat, stays, out=flat)
    return delta
