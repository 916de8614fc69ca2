"""No connector: features go into the language model as they are."""

from __future__ import annotations

from torch import Tensor, nn

from ablab.contract.failure import ConfigError


class Identity(nn.Module):
    """Features as they are.

    Raises:
        ConfigError: tower and language model differ in width.
    """

    def __init__(self, *, vision_width: int, language_width: int, patches: int) -> None:
        super().__init__()
        if vision_width != language_width:
            raise ConfigError(
                f"connector identity needs equal widths; the tower's is {vision_width}, the language model's "
                f"{language_width}: take linear"
            )
        self.tokens = patches

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, F, V) unchanged."""
        return features
