"""N linear layers with GELU between them (LLaVA-1.5's mlp2x_gelu, arXiv 2310.03744)."""

from __future__ import annotations

from torch import Tensor, nn

from ablab.contract.failure import ConfigError


class MLPConnector(nn.Module):
    """Linear(V, D), then N - 1 times GELU and Linear(D, D); names are LLaVA's (layers 0, 2, 4, ...).

    Raises:
        ConfigError: no layer at all.
    """

    def __init__(self, *, vision_width: int, language_width: int, patches: int, layers: int = 2) -> None:
        super().__init__()
        if layers < 1:
            raise ConfigError("connector mlp0x_gelu has no layer: take identity, linear or mlp2x_gelu")
        self.tokens, self.layers = patches, layers
        self.mlp = mlp(vision_width, language_width, layers=layers)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, F, V) as (N, F, D)."""
        made: Tensor = self.mlp(features)
        return made


def mlp(width: int, out: int, *, layers: int) -> nn.Sequential:
    """Return the layers of a connector's MLP."""
    steps: list[nn.Module] = [nn.Linear(width, out)]
    for _ in range(layers - 1):
        steps += [nn.GELU(), nn.Linear(out, out)]
    return nn.Sequential(*steps)
