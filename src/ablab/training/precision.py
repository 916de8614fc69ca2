"""Numerics of a step: what `auto` becomes on a device, autocast, and loss scaling for fp16.

Master weights and optimizer state stay in fp32; a lower precision is autocast over the forward pass, in training and
validation alike.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from ablab.contract.failure import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]


def resolve(wanted: str, device: torch.device) -> Precision:
    """Return what a precision means on a device; `auto` takes what it does well.

    CUDA: bf16 where the GPU computes it natively, else fp16. CPU: fp32 — bf16 pays only on processors with matrix
    tiles and for wide models, and changes what is learnt, so there it is the study that asks for it.

    Raises:
        ConfigError: the device cannot compute in the wanted precision.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "auto":
        if device.type != "cuda":
            return "fp32"
        return "bf16" if native else "fp16"
    if wanted == "bf16" and device.type == "cuda" and not native:
        raise ConfigError("precision bf16 was asked for, but this GPU has no native bf16; use fp16, fp32 or auto")
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError("precision fp16 was asked for, but on a CPU it is not trainable; use fp32, bf16 or auto")
    if wanted in ("fp32", "bf16", "fp16"):
        return wanted  # type: ignore[return-value]  # narrowed by the membership test
    raise ConfigError(f"precision {wanted!r} is unknown; expected auto, fp32, bf16 or fp16")


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which the model computes."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


class Scaler:
    """Loss scaling for fp16 (Micikevicius et al. 2018); does nothing in the other precisions."""

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.active = precision == "fp16"
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.active)

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss to run backward from."""
        return self._scaler.scale(loss) if self.active else loss

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, before they are clipped."""
        if self.active:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights, unless a scaled gradient overflowed."""
        if not self.active:
            optimizer.step()
            return
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """Return JSON values for the checkpoint."""
        return dict(self._scaler.state_dict()) if self.active else {}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        if self.active and state:
            self._scaler.load_state_dict(state)
