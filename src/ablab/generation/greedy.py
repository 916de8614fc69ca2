"""Greedy continuation: the most likely next token, again and again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def continue_greedily(next_logits: Callable[[Tensor], Tensor], prompts: Tensor, *, tokens: int, context: int) -> Tensor:
    """Return the most likely continuations of prompts.

    Args:
        next_logits: from int64 (B, T) to the logits of the next token, (B, V).
        prompts: int64 (B, T), all of one length.
        tokens: length of the continuations.
        context: tokens the model can see; earlier ones are cut off.

    Returns:
        int64 (B, tokens).
    """
    sequence = prompts
    for _ in range(tokens):
        following = next_logits(sequence[:, -context:]).argmax(-1, keepdim=True)
        sequence = torch.cat([sequence, following], dim=1)
    return sequence[:, prompts.size(1) :]
