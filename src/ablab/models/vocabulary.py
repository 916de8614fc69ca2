"""New tokens in the vocabulary of a model that is already trained, and their training beside adapters.

A token added after a model was made has no meaning until its row trains; under adapters the embedding is frozen. So
the vocabulary grows first, and `train_new_rows` then keeps the new rows as parameters of their own: a few thousand
numbers, where training the whole embedding of mT5 would be 192 million. The old rows stay exactly as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError


@torch.no_grad()
def grow_vocabulary(model: nn.Module, size: int, *, pieces: Sequence[tuple[int, Sequence[int]]]) -> None:
    """Give new tokens rows that begin as the mean of the rows of the pieces the token was split into before.

    Args:
        model: of transformers.
        size: tokens of the tokenizer; a model with more rows than that keeps them.
        pieces: id of each new token, and the ids it was before.
    """
    generating: Any = model
    rows = generating.get_input_embeddings().weight.size(0)
    if size > rows:
        generating.resize_token_embeddings(size, mean_resizing=False)
    for weight in _matrices(model):
        for token, before in pieces:
            known = [i for i in before if i < rows]
            weight[token] = weight[known].mean(0) if known else weight[:rows].mean(0)


class NewRows(nn.Module):
    """Trained rows of an embedding and, where that has a matrix of its own, of the output head.

    Args:
        model: its embeddings are hooked; the rows begin as they stand there.
        tokens: ids of the rows.
    """

    tokens: Tensor
    place: Tensor

    def __init__(self, model: nn.Module, tokens: Sequence[int]) -> None:
        super().__init__()
        generating: Any = model
        embedding, head = generating.get_input_embeddings(), generating.get_output_embeddings()
        size = embedding.weight.size(0)
        if not tokens or max(tokens) >= size:
            raise ConfigError(f"rows of tokens {list(tokens)} of a vocabulary of {size} cannot train")
        ids = torch.tensor(sorted(tokens))
        self.register_buffer("tokens", ids, persistent=False)
        place = torch.full((size,), -1, dtype=torch.int64)
        place[ids] = torch.arange(len(ids))
        self.register_buffer("place", place, persistent=False)
        self.embedding = nn.Parameter(embedding.weight.detach()[ids].float().clone())
        own = head is not None and head.weight is not embedding.weight
        self.head = nn.Parameter(head.weight.detach()[ids].float().clone()) if own else None
        shared = embedding.weight
        self._hooks = [
            module.register_forward_hook(self._embed)
            for module in model.modules()
            if isinstance(module, nn.Embedding) and module.weight is shared
        ]
        if head is not None:
            self._hooks.append(head.register_forward_hook(self._predict))

    def unhook(self) -> None:
        """Take the rows out of the model's computation."""
        for hook in self._hooks:
            hook.remove()

    def _embed(self, module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        places = self.place[given[0]]
        new = places >= 0
        scale: float = getattr(module, "embed_scale", 1.0)
        rows = self.embedding.to(output.dtype)[places.clamp_min(0)] * scale
        return torch.where(new.unsqueeze(-1), rows, output)

    def _predict(self, module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        rows = self.embedding if self.head is None else self.head
        logits = nn.functional.linear(given[0], rows.to(given[0].dtype))
        bias = getattr(module, "bias", None)
        if bias is not None:
            logits = logits + bias[self.tokens]
        return output.index_copy(-1, self.tokens, logits.to(output.dtype))


def train_new_rows(model: nn.Module) -> NewRows | None:
    """Let the rows named in `model.ablab_new_tokens` train where the embedding around them is frozen, in place.

    Called after adapters were added: what freezes the model would freeze these too. peft's own way to train rows copies
    the whole embedding in every step and leaves an output head of its own untrained.

    Returns:
        The rows; None where there are none, or where they train with the whole embedding.
    """
    tokens: Sequence[int] = getattr(model, "ablab_new_tokens", ())
    generating: Any = model
    if not tokens or hasattr(model, "new_rows") or generating.get_input_embeddings().weight.requires_grad:
        return None
    rows = NewRows(model, tokens)
    model.add_module("new_rows", rows)
    return rows


@torch.no_grad()
def merge_rows(model: nn.Module) -> list[str]:
    """Write trained rows into embedding and head, and take the module away, in place; return the tensors changed."""
    rows = getattr(model, "new_rows", None)
    if not isinstance(rows, NewRows):
        return []
    values = [rows.embedding] if rows.head is None else [rows.embedding, rows.head]
    matrices = _matrices(model)
    for weight, value in zip(matrices, values, strict=True):
        weight[rows.tokens] = value.to(weight.dtype)
    rows.unhook()
    del model.new_rows
    changed = {weight.data_ptr() for weight in matrices}
    return [name for name, value in model.state_dict().items() if value.data_ptr() in changed]


def _matrices(model: nn.Module) -> list[Tensor]:
    """Return the embedding and, where it is another matrix, the output head."""
    generating: Any = model
    embedding, head = generating.get_input_embeddings().weight, generating.get_output_embeddings()
    return [embedding] if head is None or head.weight is embedding else [embedding, head.weight]
