"""A decoder-only transformer (GPT-2's layout) with every way to start, freeze and replace its query and key.

Pre-normalisation, learned positions, GELU, optionally tied head. Shapes: B sequences, T tokens, C width, H heads.
Query, key, value and output are separate matrices: freezing one is `requires_grad = False`, never a masked gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ablab.contract.failure import DataError
from ablab.models.attention import causal_attention
from ablab.models.dropout import dropout
from ablab.models.initialization import headwise_orthogonal, named_generator, normal, orthogonal_rows
from ablab.models.loss import linear_cross_entropy, token_nats
from ablab.models.products import Linear, autocast_dtype, linear

QueryKey = Literal[
    "trained", "trained-orthogonal", "frozen-orthogonal", "frozen-global-orthogonal", "frozen-normal", "identity-query"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Everything that determines a GPT but its seed; fields as in the task's `model` section."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    context: int
    dropout: float = 0.0
    bias: bool = True
    attention_bias: bool = False
    tied_head: bool = True
    initial_std: float = 0.02
    query_key: QueryKey = "trained"
    query_key_scale: float | None = None
    unfrozen_layers: int = 0
    attention_output: Literal["trained", "zero"] = "trained"


class Attention(nn.Module):
    """Multi-head causal self-attention."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.p, self.zero = shape.heads, shape.dropout, shape.attention_output == "zero"
        width, bias = shape.width, shape.attention_bias
        identity = shape.query_key == "identity-query"
        self.query = nn.Identity() if identity else Linear(width, width, bias=bias)
        self.key = Linear(width, width, bias=bias)
        self.value = Linear(width, width, bias=bias)
        self.output = Linear(width, width, bias=bias)

    def split(self, x: Tensor) -> Tensor:
        """Return (B, T, C) as (B, H, T, C / H)."""
        B, T, C = x.shape
        return x.view(B, T, self.heads, C // self.heads).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attention branch of (B, T, C)."""
        narrow = autocast_dtype(x)
        if narrow is not None:
            x = x.to(narrow)  # once, so that the four products share one remembered input
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        y = causal_attention(q, k, v, dropout=self.p if self.training else 0.0)
        return dropout(self.output(y.transpose(1, 2).reshape(x.shape)), self.p, training=self.training)

    def logits(self, x: Tensor) -> Tensor:
        """Return the scaled attention logits q kᵀ / sqrt(D) of (B, T, C) as (B, H, T, T), unmasked."""
        q, k = self.split(self.query(x)), self.split(self.key(x))
        logits: Tensor = q @ k.transpose(-1, -2) * q.size(-1) ** -0.5
        return logits


class FeedForward(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.p = shape.dropout
        self.up = Linear(shape.width, shape.hidden, bias=shape.bias)
        self.down = Linear(shape.hidden, shape.width, bias=shape.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the feed-forward branch of (B, T, C)."""
        return dropout(self.down(F.gelu(self.up(x))), self.p, training=self.training)


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.width, bias=shape.bias)
        self.attention = Attention(shape)
        self.feedforward_norm = nn.LayerNorm(shape.width, bias=shape.bias)
        self.feedforward = FeedForward(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, C) one block further."""
        if not self.attention.zero:
            x = x + self.attention(self.attention_norm(x))
        y: Tensor = x + self.feedforward(self.feedforward_norm(x))
        return y


class GPT(nn.Module):
    """The model; every parameter is drawn from the stream `initialisation` of `seed` under its own name.

    Args:
        shape: sizes and options.
        seed: seed of the initialisation.
        store_frozen: "seed" lets a checkpoint keep frozen projections as (initialisation, seed).
    """

    def __init__(self, shape: Shape, *, seed: int, store_frozen: Literal["weights", "seed"] = "weights") -> None:
        super().__init__()
        self.seed, self.store_frozen = seed, store_frozen
        self.gradient_checkpointing = False
        # Not on the meta device: it imports torch's compiler and sympy, seconds a worker. Every value is overwritten.
        self.build(shape)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(initial(shape, name, tuple(parameter.shape), seed))
                parameter.requires_grad_(not is_frozen(shape, name))

    def build(self, shape: Shape) -> None:
        """Make the modules; their weights are drawn afterwards."""
        self.shape = shape
        self.tokens = nn.Embedding.from_pretrained(torch.empty(shape.vocabulary, shape.width), freeze=False)
        self.positions = nn.Embedding.from_pretrained(torch.empty(shape.context, shape.width), freeze=False)
        self.blocks = nn.ModuleList([Block(shape) for _ in range(shape.layers)])
        self.norm = nn.LayerNorm(shape.width, bias=shape.bias)
        self.head = None if shape.tied_head else nn.Linear(shape.width, shape.vocabulary, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """The output head's weight, (V, C)."""
        return self.tokens.weight if self.head is None else self.head.weight

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the activations of each block in the backward pass."""
        self.gradient_checkpointing = True

    def embed(self, inputs: Tensor) -> Tensor:
        """Return the residual stream before the first block: int64 (B, T) to (B, T, C)."""
        positions = self.positions.weight[: inputs.size(1)]
        return dropout(self.tokens(inputs) + positions, self.shape.dropout, training=self.training)

    def hidden(self, inputs: Tensor) -> Tensor:
        """Return the normalised final states of int64 (B, T) as (B, T, C).

        Raises:
            ValueError: when T exceeds the context.
        """
        if inputs.size(1) > self.shape.context:
            raise ValueError(f"{inputs.size(1)} tokens exceed the context of {self.shape.context}")
        x = self.embed(inputs)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        normalized: Tensor = self.norm(x)
        return normalized

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the summed cross-entropy in nats of int64 (B, T) targets, -100 ignored; fp32 scalar."""
        hidden = self.hidden(inputs)
        return linear_cross_entropy(hidden.flatten(0, 1), self.head_weight, targets.flatten())

    @torch.no_grad()
    def nats(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the nats of each target, fp32 (B, T), 0 where the target is -100."""
        hidden = self.hidden(inputs)
        return token_nats(hidden.flatten(0, 1), self.head_weight, targets.flatten()).view(targets.shape)

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """Return the logits of the token after the last one of int64 (B, T): (B, V)."""
        return linear(self.hidden(inputs)[:, -1], self.head_weight)

    @torch.no_grad()
    def attention_logits(self, inputs: Tensor) -> list[Tensor]:
        """Return each layer's attention logits (B, H, T, T) of int64 (B, T), unmasked, without dropout."""
        training, logits = self.training, []
        self.eval()
        x = self.embed(inputs)
        for block in self.blocks:
            assert isinstance(block, Block)
            logits.append(block.attention.logits(block.attention_norm(x)))
            x = block(x)
        self.train(training)
        return logits

    def regenerable(self) -> dict[str, dict[str, Any]]:
        """Return what a checkpoint may leave out: state name to the JSON recipe that makes it again.

        Empty unless the model stores frozen projections as seeds.
        """
        if self.store_frozen == "weights":
            return {}
        shape = self.shape
        return {
            name: {"initialization": shape.query_key, "scale": shape.query_key_scale, "seed": self.seed}
            for name, _ in self.named_parameters()
            if is_frozen(shape, name) and name.endswith("weight") and is_query_key(name)
        }

    def regenerate(self, name: str, recipe: Mapping[str, Any]) -> Tensor:
        """Make a left-out tensor again from its recipe.

        Raises:
            DataError: the model has no such tensor, or the recipe is of another initialisation.
        """
        shape = self.shape
        known = {name: tuple(parameter.shape) for name, parameter in self.named_parameters()}
        if name not in known or not is_query_key(name):
            raise DataError(f"{name}: not a query or key projection of this model")
        found = (recipe.get("initialization"), recipe.get("scale"))
        if found != (shape.query_key, shape.query_key_scale):
            raise DataError(f"{name}: made by {found}, but this model's is {(shape.query_key, shape.query_key_scale)}")
        return initial(shape, name, known[name], int(recipe["seed"]))


def is_query_key(name: str) -> bool:
    """Whether a parameter belongs to a query or key projection."""
    return ".attention.query." in name or ".attention.key." in name


def is_frozen(shape: Shape, name: str) -> bool:
    """Whether the shape freezes the parameter called `name`."""
    if shape.attention_output == "zero" and (".attention." in name or ".attention_norm." in name):
        return True
    if not (is_query_key(name) and shape.query_key.startswith("frozen")):
        return False
    return int(name.split(".")[1]) < shape.layers - shape.unfrozen_layers


def initial(shape: Shape, name: str, size: tuple[int, ...], seed: int) -> Tensor:
    """Return the initial value of the parameter `name` of `size`, fp32."""
    generator = named_generator(seed, name)
    if name.endswith("bias"):
        return torch.zeros(size)
    if "norm" in name:
        return torch.ones(size)
    if shape.attention_output == "zero" and ".attention.output." in name:
        return torch.zeros(size)
    if not is_query_key(name):
        return normal(size, std=shape.initial_std, generator=generator)
    match shape.query_key:
        case "trained-orthogonal" | "frozen-orthogonal":
            return headwise_orthogonal(shape.width, shape.heads, generator=generator)
        case "frozen-global-orthogonal":
            return orthogonal_rows(shape.width, shape.width, generator=generator)
        case "frozen-normal":
            return normal(size, std=shape.query_key_scale or shape.width**-0.5, generator=generator)
        case _:
            return normal(size, std=shape.initial_std, generator=generator)


def parameter_count(parameters: Iterable[nn.Parameter], *, trained: bool | None = None) -> int:
    """Count elements of parameters, all or only the trained (True) or frozen (False) ones."""
    return sum(p.numel() for p in parameters if trained is None or p.requires_grad is trained)
