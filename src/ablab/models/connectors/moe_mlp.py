"""A mixture of MLPs: each feature goes to a few of several experts, which a router chooses (top-k of a softmax).

The load is balanced by Switch Transformer's loss (arXiv 2101.03961): E x sum over experts of (share of features sent
there) x (mean probability), 1 when balanced. The share counts hard choices and has no gradient; the probability has.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablab.contract.failure import ConfigError
from ablab.models.connectors.mlp import mlp


class MixtureConnector(nn.Module):
    """Weighted sum of the chosen experts' outputs, weights being their probabilities made to sum to one.

    Args:
        vision_width: V.
        language_width: D.
        patches: F.
        experts: MLPs of two layers.
        active: how many each feature goes through.
        balance: weight of the balancing loss, which `auxiliary` holds after a call.

    Raises:
        ConfigError: more active experts than there are.
    """

    def __init__(
        self,
        *,
        vision_width: int,
        language_width: int,
        patches: int,
        experts: int = 4,
        active: int = 2,
        balance: float = 0.01,
    ) -> None:
        super().__init__()
        if not 1 <= active <= experts:
            raise ConfigError(f"connector moe_mlp: active {active} experts of {experts}")
        self.tokens, self.active, self.balance = patches, active, balance
        self.router = nn.Linear(vision_width, experts, bias=False)
        self.experts = nn.ModuleList([mlp(vision_width, language_width, layers=2) for _ in range(experts)])
        self.auxiliary: Tensor | None = None
        self.load: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, F, V) as (N, F, D)."""
        flat = features.flatten(0, 1)
        probabilities = torch.softmax(self.router(flat).float(), dim=-1)
        weights, chosen = probabilities.topk(self.active, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        out: Tensor | None = None
        for index, expert in enumerate(self.experts):
            rows, place = (chosen == index).nonzero(as_tuple=True)
            part = expert(flat[rows]) * weights[rows, place].unsqueeze(-1).to(flat.dtype)
            out = part.new_zeros(flat.size(0), part.size(-1)) if out is None else out
            out = out.index_add(0, rows, part)
        assert out is not None
        self._balance(probabilities, chosen)
        made: Tensor = out.unflatten(0, features.shape[:2])
        return made

    def _balance(self, probabilities: Tensor, chosen: Tensor) -> None:
        experts = probabilities.size(-1)
        share = F.one_hot(chosen, experts).float().sum(1).mean(0) / self.active
        self.load = share.detach()
        self.auxiliary = self.balance * experts * (share * probabilities.mean(0)).sum() if self.balance else None
