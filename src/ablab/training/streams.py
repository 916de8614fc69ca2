"""Setting torch's generators at the start of every micro-batch, so that no generator state need be saved."""

from __future__ import annotations

from collections.abc import Callable

import torch


def seeder(device: torch.device) -> Callable[[int], None]:
    """Return a function that seeds the default generators of the CPU and of `device`.

    `torch.manual_seed` does the same for all devices there are; where CUDA is not in use, it also records a stack
    trace at every call, at the price of a millisecond.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])

    def seed(value: int) -> None:
        for generator in generators:
            generator.manual_seed(value)

    return seed
