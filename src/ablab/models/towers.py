"""A CLIP-style pair of towers: two transformers, or a transformer and a convolution, of transformers or open_clip.

What the pair is called and where it comes from is the caller's; here it becomes two modules that `ablab.models.taps`
reads, with the inputs each takes.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError
from ablab.models.taps import layer_names


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both towers and how they are called.

    Args:
        text: called with `ids` and, where `masked`, an attention mask.
        vision: called with pixels (B, 3, S, S).
        masked: whether the text tower takes a mask; those of open_clip read padding as text.
    """

    text: nn.Module
    vision: nn.Module
    masked: bool = True

    @property
    def depths(self) -> tuple[int, int]:
        """Layers of the text and of the vision tower."""
        return len(layer_names(self.text)), len(layer_names(self.vision))


class TextInput(nn.Module):
    """Calls a text tower by what its library names its inputs.

    Args:
        tower: of transformers (input_ids, attention_mask), or of open_clip (one positional argument).
        masked: whether it takes a mask.
    """

    def __init__(self, tower: nn.Module, *, masked: bool) -> None:
        super().__init__()
        self.tower, self.masked = tower, masked

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        """Run the tower over ids (B, T), of which `mask` (B, T) are words."""
        if self.masked:
            return self.tower(input_ids=ids, attention_mask=mask.long())
        return self.tower(ids)


class VisionInput(nn.Module):
    """Calls a vision tower, after normalising uint8 pixels.

    Args:
        tower: of transformers (pixel_values), or of open_clip (one positional argument).
        named: whether its argument is named.
        mean, std: of the channels, for values from 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, tower: nn.Module, *, named: bool, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.tower, self.named = tower, named
        self.register_buffer("mean", 255.0 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Any:
        """Run the tower over uint8 pixels (B, 3, S, S)."""
        values = (pixels.float() - self.mean) / self.std
        return self.tower(pixel_values=values) if self.named else self.tower(values)


def open_clip_pair(name: str, *, pretrained: str | None, seed: int) -> Pair:
    """Return a pair of open_clip (MobileCLIP-S1, ViT-B-32), without its projection heads.

    Raises:
        ConfigError: open_clip is not installed, or knows no such model or weights.
    """
    open_clip = open_clip_library()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = open_clip.create_model(name, pretrained=pretrained)
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            raise ConfigError(f"towers.open_clip: {name} ({pretrained}): {str(error).splitlines()[0]}") from error
    text = model.text if hasattr(model, "text") else OpenClipText(model)
    return Pair(text=text, vision=model.visual, masked=False)


def open_clip_tokenizer(name: str) -> Any:
    """Return the tokenizer of a model of open_clip.

    Raises:
        ConfigError: open_clip is not installed, or the tokenizer cannot be had.
    """
    try:
        return open_clip_library().get_tokenizer(name)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise ConfigError(f"towers.open_clip: {name} has no tokenizer here: {str(error).splitlines()[0]}") from error


def open_clip_library() -> Any:
    """Return the package open_clip. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module("open_clip")
    except ImportError as error:
        raise ConfigError("towers.open_clip needs the package open_clip: pip install 'ablab[open-clip]'") from error
    except (RuntimeError, OSError) as error:
        # A torchvision of another torch ends so.
        raise ConfigError(
            f"towers.open_clip: the package open_clip cannot be imported ({str(error).splitlines()[0]}); install the "
            "torchvision that belongs to the torch here"
        ) from error


class OpenClipText(nn.Module):
    """The text half of an open_clip model that keeps it in one module with its vision half."""

    attn_mask: Tensor | None

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.token_embedding, self.transformer = model.token_embedding, model.transformer
        self.positional_embedding = model.positional_embedding
        self.register_buffer("attn_mask", model.attn_mask, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the last states (B, T, C)."""
        states = self.token_embedding(ids) + self.positional_embedding[: ids.size(1)]
        mask = None if self.attn_mask is None else self.attn_mask[: ids.size(1), : ids.size(1)]
        found: Tensor = self.transformer(states, attn_mask=mask)
        return found
