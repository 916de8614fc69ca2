"""A mixture in place of a feed-forward layer: several experts, weighed by a router for each token.

The router is Linear(h [+ language] -> 256), ReLU, Linear(-> experts), a softmax with temperature. Weights of the chosen
experts sum to one, so that equal experts compute what the one layer did. Two losses keep the router sound and are means
over the tokens of a call, in `auxiliary`: Switch Transformer's balance loss (arXiv 2101.03961), E x sum of (share of
tokens an expert was chosen for) x (its mean weight), 1 when balanced; and the z-loss (arXiv 2202.08906), the mean
square of the logits' logsumexp. Both count tokens of a whole batch, so they couple samples. Putting
mixtures into models is `ablab.models.experts`' business.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablab.contract.experts import ExpertSettings
from ablab.contract.failure import DataError
from ablab.models.layers import is_linear


class Route:
    """What a batch tells every router of a model, and what they are asked to note.

    Attributes:
        languages: number of each sample's language (B,), or of each token's (B, T), in the order of the settings.
        mask: tokens that count in the losses (B, T); None counts all.
        noting: whether the use of experts is added up, by language.
    """

    def __init__(self) -> None:
        self.languages: Tensor | None = None
        self.mask: Tensor | None = None
        self.noting = False

    def language_of(self, hidden: Tensor) -> Tensor | None:
        """Return the language of each token (B, T) of hidden states (B, T, D); None where none was told.

        Raises:
            DataError: languages of another batch.
        """
        if self.languages is None:
            return None
        return _spread(self.languages, hidden, "languages").to(hidden.device)

    def counts(self, hidden: Tensor) -> Tensor | None:
        """Return which tokens count (B, T); None counts all."""
        if self.mask is None or self.mask.shape[-1] != hidden.shape[1]:
            return None
        return _spread(self.mask, hidden, "mask").to(hidden.device)


def _spread(told: Tensor, hidden: Tensor, what: str) -> Tensor:
    """Return what was told of samples or tokens for every token; beams stand beside each other."""
    batch, length = hidden.shape[:2]
    per_token = told.unsqueeze(1).expand(-1, length) if told.dim() == 1 else told
    if batch % len(per_token) or per_token.shape[1] != length:
        raise DataError(f"{what} of shape {tuple(told.shape)} were told, and the batch is {batch} x {length} tokens")
    return per_token.repeat_interleave(batch // len(per_token), dim=0)


class Router(nn.Module):
    """Scores of the experts for each token, in fp32.

    Args:
        width: of the hidden states.
        settings: of the experts.
    """

    def __init__(self, width: int, settings: ExpertSettings) -> None:
        super().__init__()
        # With L languages, L - 1 inputs tell which it is; the first is all zeros.
        self.flags = len(settings.languages) - 1 if settings.flag else 0
        self.first = nn.Linear(width + self.flags, settings.hidden)
        self.second = nn.Linear(settings.hidden, len(settings.experts))

    def forward(self, hidden: Tensor, language: Tensor | None) -> Tensor:
        """Return scores (B, T, E) of hidden states (B, T, D).

        Raises:
            DataError: the router is to know the language, and none was told.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            states = hidden.to(self.first.weight.dtype)
            if self.flags:
                if language is None:
                    raise DataError("the router takes the language of each sample, and none was told (set_languages)")
                flags = F.one_hot(language, self.flags + 1)[..., 1:].to(states.dtype)
                states = torch.cat([states, flags], dim=-1)
            scores: Tensor = self.second(F.relu(self.first(states)))
            return scores.float()


class LowRankExpert(nn.Module):
    """Low-rank additions to the matrices of a shared feed-forward layer, whole ones to its biases; zero at the start.

    Args:
        layer: the shared layer.
        rank: of the additions.
        generator: draws the first factors; the second are zero.
    """

    def __init__(self, layer: nn.Module, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down, self.up, self.bias = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        for name, matrix in matrices(layer).items():
            rows, columns = _sizes(matrix)
            drawn = torch.rand(rank, columns, generator=generator).mul_(2).sub_(1) / columns**0.5
            like = matrix.weight
            self.down[key_of(name)] = nn.Parameter(drawn.to(like.device, like.dtype))
            self.up[key_of(name)] = nn.Parameter(torch.zeros(rows, rank, device=like.device, dtype=like.dtype))
            if matrix.bias is not None:
                self.bias[key_of(name)] = nn.Parameter(torch.zeros_like(matrix.bias))

    def add(self, name: str, given: Tensor, made: Tensor) -> Tensor:
        """Return a matrix's output with the addition."""
        key = key_of(name)
        return made + F.linear(F.linear(given, self.down[key]), self.up[key], self.bias.get(key))


class ExpertFeedForward(nn.Module):
    """Takes the place of a feed-forward layer: weighted sum of its experts.

    Args:
        layer: the feed-forward layer; every expert starts as it is.
        width: of the hidden states.
        settings: of the experts.
        route: what batches tell.
        generator: draws the router, and low-rank experts.
    """

    def __init__(
        self, layer: nn.Module, *, width: int, settings: ExpertSettings, route: Route, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.settings, self.route = settings, route
        self.router = Router(width, settings)
        _draw(self.router, generator)
        count = len(settings.experts)
        self.layer: nn.Module | None = None
        if settings.adapters is None:
            self.experts = nn.ModuleList([layer, *(copy.deepcopy(layer) for _ in range(count - 1))])
        else:
            self.layer = layer
            self.experts = nn.ModuleList([LowRankExpert(layer, settings.adapters, generator) for _ in range(count)])
            self._hook(layer)
        self.router.to(next(layer.parameters()).device)
        self.auxiliary: dict[str, Tensor] = {}
        self.used = torch.zeros(len(settings.languages) + 1, count, dtype=torch.float64)
        self._active: LowRankExpert | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what the feed-forward layer would, of hidden states (B, T, D)."""
        flat = hidden.dim() == 2
        states = hidden.unsqueeze(0) if flat else hidden
        language = self.route.language_of(states)
        scores = self.router(states, language)
        weights = torch.softmax(scores / self.settings.temperature, dim=-1)
        chosen = weights.topk(self.settings.active, dim=-1).indices
        self._losses(scores, weights, chosen, self.route.counts(states))
        if self.route.noting:
            self._note(self._shares(weights, chosen), language, self.route.counts(states))
        made = (
            self._dense(states, weights) if self.settings.routing == "dense" else self._sparse(states, weights, chosen)
        )
        return made.squeeze(0) if flat else made

    def _dense(self, states: Tensor, weights: Tensor) -> Tensor:
        total: Tensor | None = None
        for index in range(len(self.experts)):
            made = self._expert(index, states)
            part = made * weights[..., index, None].to(made.dtype)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _sparse(self, states: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Gather the tokens by expert, once, so that each expert computes one block of them."""
        flat, taken = states.flatten(0, 1), chosen.flatten(0, 1)
        gates = self._gates(weights.flatten(0, 1).gather(1, taken)).flatten()
        order = taken.flatten().argsort(stable=True)
        rows = order // taken.size(1)
        counts = torch.bincount(taken.flatten(), minlength=len(self.experts)).tolist()
        parts = [self._expert(index, part) for index, part in enumerate(flat[rows].split(counts))]
        made = torch.cat(parts) * gates[order].unsqueeze(-1).to(flat.dtype)
        total = made.new_zeros(flat.size(0), made.size(-1)).index_add(0, rows, made)
        whole: Tensor = total.unflatten(0, states.shape[:2])
        return whole

    def _gates(self, weights: Tensor) -> Tensor:
        """Return weights of the chosen experts that sum to one; a single one is 1 with the gradient of its share."""
        if weights.size(-1) == 1:
            return weights / weights.detach()
        return weights / weights.sum(-1, keepdim=True)

    def _shares(self, weights: Tensor, chosen: Tensor) -> Tensor:
        """Return the weight each expert really has (B, T, E)."""
        if self.settings.routing == "dense":
            return weights
        return torch.zeros_like(weights).scatter(-1, chosen, self._gates(weights.gather(-1, chosen)))

    def _expert(self, index: int, given: Tensor) -> Tensor:
        if self.layer is None:
            made = self.experts[index](given)
        else:
            expert = self.experts[index]
            assert isinstance(expert, LowRankExpert)
            self._active = expert
            try:
                made = self.layer(given)
            finally:
                self._active = None
        # Layers that are mixtures themselves return their router's scores beside the states.
        states: Tensor = made[0] if isinstance(made, tuple) else made
        return states

    def _hook(self, layer: nn.Module) -> None:
        for name, matrix in matrices(layer).items():
            matrix.register_forward_hook(self._adding(name))

    def _adding(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
            return made if self._active is None else self._active.add(name, given[0], made)

        return add

    def _losses(self, scores: Tensor, weights: Tensor, chosen: Tensor, counts: Tensor | None) -> None:
        """Keep the weighted means of both losses over the tokens that count."""
        if not (self.training and torch.is_grad_enabled()):
            self.auxiliary = {}
            return
        if counts is not None:
            scores, weights, chosen = scores[counts], weights[counts], chosen[counts]
        experts = weights.size(-1)
        scores, weights = scores.reshape(-1, experts), weights.reshape(-1, experts)
        # Where all experts are taken, what counts as chosen is the likeliest.
        taken = (
            weights.argmax(-1, keepdim=True)
            if self.settings.routing == "dense"
            else chosen.reshape(-1, chosen.size(-1))
        )
        share = F.one_hot(taken, experts).float().sum(1).mean(0) / taken.size(-1)
        found = {}
        if self.settings.balance:
            found["balance"] = self.settings.balance * experts * (share * weights.mean(0)).sum()
        if self.settings.z:
            found["z"] = self.settings.z * torch.logsumexp(scores, dim=-1).square().mean()
        self.auxiliary = found

    @torch.no_grad()
    def _note(self, shares: Tensor, language: Tensor | None, counts: Tensor | None) -> None:
        """Add up weights by language; the last row is for tokens whose language was not told."""
        rows = torch.full(shares.shape[:2], len(self.used) - 1, device=shares.device) if language is None else language
        if counts is not None:
            rows, shares = rows[counts], shares[counts]
        added = torch.zeros(self.used.shape, dtype=torch.float64, device=shares.device)
        added.index_add_(0, rows.flatten(), shares.reshape(-1, shares.size(-1)).double())
        self.used += added.cpu()


def matrices(layer: nn.Module) -> dict[str, Any]:
    """Return the linear modules of a feed-forward layer by dotted name."""
    return {name: module for name, module in layer.named_modules() if is_linear(module)}


def is_turned(matrix: Any) -> bool:
    """Whether a module keeps its matrix as (columns, rows), as GPT-2's Conv1D does."""
    return not isinstance(matrix, nn.Linear) and type(matrix).__name__ == "Conv1D"


def _sizes(matrix: Any) -> tuple[int, int]:
    rows, columns = matrix.weight.shape
    return (columns, rows) if is_turned(matrix) else (rows, columns)


def key_of(name: str) -> str:
    """Return the name of a matrix as a key of parameters, which take no dots."""
    return name.replace(".", "_")


@torch.no_grad()
def _draw(router: Router, generator: torch.Generator) -> None:
    """Draw the first layer as nn.Linear does and the last near zero: the experts start about equally weighed."""
    bound = router.first.in_features**-0.5
    router.first.weight.copy_(torch.rand(router.first.weight.shape, generator=generator).mul_(2).sub_(1).mul_(bound))
    router.second.weight.copy_(torch.randn(router.second.weight.shape, generator=generator).mul_(0.01))
    router.first.bias.zero_()
    router.second.bias.zero_()
