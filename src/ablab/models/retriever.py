"""Two towers and the fusion of their layers: items of text and image become vectors to be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ablab.models.fusion import Fusion, FusionShape, Seen
from ablab.models.taps import TappedTower

Role = Literal["query", "passage"]
Modalities = tuple[bool, bool]
#: Largest inverse of a learnt temperature, as CLIP has it.
MOST_SCALE = 100.0


class Temperature(nn.Module):
    """What scores are divided by, learnt as the logarithm of its inverse or fixed."""

    inverse: Tensor

    def __init__(self, temperature: float, *, learnable: bool) -> None:
        super().__init__()
        start = torch.tensor(-math.log(temperature))
        if learnable:
            self.inverse = nn.Parameter(start)
        else:
            self.register_buffer("inverse", start)

    def forward(self, scores: Tensor) -> Tensor:
        """Return scores / temperature."""
        if isinstance(self.inverse, nn.Parameter):
            # The parameter itself stops at the bound, so that it can come back: beyond it, its gradient would be zero.
            with torch.no_grad():
                self.inverse.clamp_(max=math.log(MOST_SCALE))
        return scores * self.inverse.exp()


class Retriever(nn.Module):
    """Queries and passages as vectors.

    Args:
        text, vision: the towers.
        shape: of the fusion.
        shared: one cell for both roles, `fusion`; otherwise `query_fusion` and `passage_fusion`.
        sees: (text, image) that a role sees.
        temperature: of the loss.
    """

    def __init__(
        self,
        *,
        text: TappedTower,
        vision: TappedTower,
        shape: FusionShape,
        shared: bool,
        sees: Mapping[Role, Modalities],
        temperature: Temperature,
    ) -> None:
        super().__init__()
        self.text, self.vision, self.scale = text, vision, temperature
        self.sees = dict(sees)
        for tower in (text, vision):
            tower.keep_statistics = True
            tower.train(tower.training)
        if shared:
            self.fusion = Fusion(shape)
        else:
            self.query_fusion, self.passage_fusion = Fusion(shape), Fusion(shape)
        self.freeze_unseen()

    def fusion_of(self, role: Role) -> Fusion:
        """Return the fusion that a role goes through."""
        found = self.fusion if hasattr(self, "fusion") else getattr(self, f"{role}_fusion")
        assert isinstance(found, Fusion)
        return found

    def encode(self, role: Role, items: Mapping[str, Any]) -> Tensor:
        """Return the vectors of items, fp32 (B, queries, output).

        Args:
            role: query or passage.
            items: ids (B, T), mask (B, T), text (B,), pixels uint8 (B, 3, S, S), image (B,); what the role does not
                see may be left out, but for text and image, which say what is there.
        """
        text, image = self.sees[role]
        words = self._words(items) if text else Seen(states=None, valid=None, present=items["text"])
        looks = self._looks(items) if image else Seen(states=None, valid=None, present=items["image"])
        vectors: Tensor = self.fusion_of(role)(words, looks)
        return vectors

    def _words(self, items: Mapping[str, Any]) -> Seen:
        return Seen(
            states=self._run(self.text, ids=items["ids"], mask=items["mask"]),
            valid=items["mask"],
            present=items["text"],
        )

    def _looks(self, items: Mapping[str, Any]) -> Seen:
        return Seen(states=self._run(self.vision, pixels=items["pixels"]), valid=None, present=items["image"])

    @staticmethod
    def _run(tower: TappedTower, **inputs: Tensor) -> list[Tensor]:
        """Return the states of a tower; without a graph where nothing of it trains."""
        trains = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in tower.parameters())
        with torch.set_grad_enabled(trains):
            found: list[Tensor] = tower(**inputs)
        return found

    def freeze_unseen(self) -> None:
        """Stop the gradient of what no role can reach, so that it counts as frozen and not as still."""
        for index, (tower, names) in enumerate(((self.text, _TEXT), (self.vision, _IMAGE))):
            tower.freeze_unread()
            if not any(seen[index] for seen in self.sees.values()):
                tower.requires_grad_(False)
            for role in ("query", "passage"):
                roles = self.sees.values() if hasattr(self, "fusion") else [self.sees[role]]
                if not any(seen[index] for seen in roles):
                    for name, parameter in self.fusion_of(role).named_parameters():
                        if any(name.startswith(prefix) for prefix in names):
                            parameter.requires_grad_(False)


#: Parameters of the fusion that only a text, or only an image, reaches.
_TEXT = ("text_maps", "cell.text.", "cell.text_norm", "cell.text_gate", "cell.text_forget.weight")
_IMAGE = ("image_maps", "cell.image.", "cell.image_norm", "cell.image_gate", "cell.image_forget")
