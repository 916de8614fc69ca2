"""How a decoder's feed-forward layers become language experts; no torch, so that the control plane reads it too.

The layers themselves are `ablab.models.experts`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ablab.contract.base import Strict, setting

#: The expert beside those of the languages: the merged model's.
SHARED = "shared"


class ExpertSettings(Strict):
    """Language experts in chosen layers: one feed-forward layer a language, one shared, and a router between them."""

    layers: tuple[int, ...] = setting(
        (16, 20, 24, 28), "Layers of the decoder (0-based) whose feed-forward layer becomes experts.", min_length=1
    )
    languages: tuple[str, ...] = setting(("ko", "en"), "Languages, one expert each; `shared` is added.", min_length=1)
    routing: Literal["dense", "top-1", "top-2"] = setting(
        "dense", "dense weighs all experts, top-1 and top-2 compute only the likeliest."
    )
    hidden: int = setting(256, "Width of the router's hidden layer.", ge=1)
    flag: bool = setting(True, "Tell the router the language of the sample.")
    temperature: float = setting(1.0, "Temperature of the router's softmax.", gt=0)
    balance: float = setting(0.01, "Weight of the balance loss.", ge=0)
    z: float = setting(0.001, "Weight of the router's z-loss.", ge=0)
    adapters: int | None = setting(
        None, "Rank of low-rank experts upon one feed-forward layer; null makes whole experts.", ge=1
    )
    train: Literal["experts", "all"] = setting(
        "experts", "experts: of the language model only experts and router train; all: as its part says."
    )

    @model_validator(mode="after")
    def _fits(self) -> ExpertSettings:
        if SHARED in self.languages or len(set(self.languages)) != len(self.languages):
            raise ValueError(f"languages differ from each other and from {SHARED!r}; found {', '.join(self.languages)}")
        if len(set(self.layers)) != len(self.layers) or min(self.layers) < 0:
            raise ValueError(f"layers count from 0, each once; found {', '.join(map(str, self.layers))}")
        return self

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts: the languages', then the shared one."""
        return (*self.languages, SHARED)

    @property
    def active(self) -> int:
        """Experts a token goes through."""
        count = len(self.experts)
        return count if self.routing == "dense" else min(count, int(self.routing[-1]))

    def beyond(self, layers: int) -> list[int]:
        """Return the layers that a decoder of so many does not have."""
        return [layer for layer in self.layers if layer >= layers]
