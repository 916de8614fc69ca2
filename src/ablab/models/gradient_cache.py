"""Gradient caching: a loss over a whole batch whose encoder never holds the graph of more than a chunk of it.

The encoder runs over the chunks without a graph; the loss above gives the gradient of every representation; the
encoder runs again, chunk by chunk, and takes that gradient further (Gao et al. 2021, arXiv 2101.06983). Loss and
gradient are those of the undivided batch up to the order of addition. Random numbers of the first pass (dropout) and
its autocast are replayed in the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Chunk = Mapping[str, Any]
Encode = Callable[[Chunk], Tensor]


def encode_in_chunks(encode: Encode, chunks: Sequence[Chunk]) -> Tensor:
    """Return encode(chunk) of all chunks, one after another; its backward pass runs the encoder again.

    The gradients of the encoder's parameters are added to their `.grad`, whatever `torch.autograd.grad` may ask for.

    Args:
        encode: returns (rows, ...) for a chunk; a function of the chunk, its parameters and torch's generators.
        chunks: at least one.
    """
    if len(chunks) == 1:
        return encode(chunks[0])
    if not torch.is_grad_enabled():
        return torch.cat([encode(chunk) for chunk in chunks])
    # Something has to require a gradient for the backward pass to come through here.
    found: Tensor = _Cached.apply(torch.ones((), requires_grad=True), encode, chunks)  # type: ignore[no-untyped-call]  # torch has no types here
    return found


class _Cached(torch.autograd.Function):
    """Representations without a graph forward; the encoder with one, a chunk at a time, backward."""

    @staticmethod
    def forward(ctx: Any, _: Tensor, encode: Encode, chunks: Sequence[Chunk]) -> Tensor:
        rows, replays = [], []
        for chunk in chunks:
            replays.append(_Replay(chunk))
            rows.append(encode(chunk))
        ctx.encode, ctx.chunks, ctx.replays = encode, chunks, replays
        ctx.sizes = [len(row) for row in rows]
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        shares = gradients[0].split(ctx.sizes)
        for chunk, replay, share in zip(ctx.chunks, ctx.replays, shares, strict=True):
            with replay.again(), torch.enable_grad():
                rows = ctx.encode(chunk)
            if rows.requires_grad:
                torch.autograd.backward(rows, share)
        return None, None, None


class _Replay:
    """The state of torch's generators and of autocast before a chunk."""

    def __init__(self, chunk: Chunk) -> None:
        kinds = {value.device.type for value in chunk.values() if isinstance(value, Tensor)}
        self._kind = "cuda" if "cuda" in kinds else "cpu"
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state() if self._kind == "cuda" else None
        self._autocast = torch.is_autocast_enabled(self._kind)
        self._dtype = torch.get_autocast_dtype(self._kind)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Give the generators the state of back then, for the enclosed work."""
        devices = [torch.cuda.current_device()] if self._cuda is not None else []
        with (
            torch.random.fork_rng(devices=devices),
            torch.autocast(self._kind, dtype=self._dtype, enabled=self._autocast),
        ):
            torch.set_rng_state(self._cpu)
            if self._cuda is not None:
                torch.cuda.set_rng_state(self._cuda)
            yield
