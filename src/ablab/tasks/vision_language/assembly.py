"""From the section `model` to what computes: tokenizer, framing of pictures, the model itself, and how it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ablab.contract.failure import ConfigError
from ablab.contract.order import Input
from ablab.contract.registry import is_file_reference
from ablab.data.images import Aspect, Framing, normalise
from ablab.data.templates import Encoder, template_of
from ablab.models.experts import add_experts, set_languages
from ablab.models.hub import load_config, load_connector_into, load_image_processor, load_tokenizer
from ablab.models.minicpm import family_of
from ablab.models.vision_language import VisionLanguageModel, build_vision_language
from ablab.tasks.vision_language.batches import Rows
from ablab.tasks.vision_language.sections import Model

#: How the place of an image is written where a tokenizer has no token for it.
IMAGE_TOKEN = "<image>"


class Assembly:
    """What the section `model` names.

    Args:
        section: the section.
        inputs: finished runs, for parts that a stage leaves.
        study_folder: where relative folders start.
        revisions: hub revisions of the study's lock file.
    """

    def __init__(
        self, section: Model, *, inputs: Iterable[Input], study_folder: str | None, revisions: Mapping[str, str]
    ) -> None:
        self.section = section
        self._places: dict[str, Any] = {"inputs": list(inputs), "study_folder": study_folder, "revisions": revisions}

    @cached_property
    def tokenizer(self) -> Any:
        """The language model's tokenizer, with a token for images."""
        found: Any = load_tokenizer(self.section.llm, **self._places)
        if IMAGE_TOKEN not in found.get_vocab():
            found.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
        return found

    @cached_property
    def image_token(self) -> int:
        """Id that stands for one feature of an image; it is never looked up in the embedding."""
        return int(self.tokenizer.get_vocab()[IMAGE_TOKEN])

    @cached_property
    def pad(self) -> int:
        """Id of padding."""
        found = self.tokenizer.pad_token_id
        return int(found if found is not None else self.tokenizer.eos_token_id or 0)

    @cached_property
    def llm_config(self) -> Any:
        """Configuration of the language model itself, out of a multimodal one where it is one."""
        found = load_config(self.section.llm, **self._places)
        return getattr(found, "text_config", found)

    @cached_property
    def tower_config(self) -> Any:
        """Configuration of the tower itself, out of a two-tower one where it is one."""
        found = load_config(self.section.tower, **self._places)
        return getattr(found, "vision_config", found)

    def encoder(self, template: str, *, max_length: int | None, system: str | None = None) -> Encoder:
        """Return conversations to tokens, by the language model's template or a named one."""
        return Encoder(
            self.tokenizer,
            template_of(template, model_type=family_of(self.llm_config), system=system),
            image_token=self.image_token,
            image_tokens=self.image_tokens,
            max_length=max_length,
        )

    def framing(self, aspect: Aspect) -> Framing:
        """Return how pictures become the tower's pixels: size and normalisation of its image processor."""
        size = self._grid[0]
        if self.section.tower.config is not None:
            return Framing(size=size, aspect=aspect)
        processor: Any = load_image_processor(self.section.tower, **self._places)
        mean, std = (tuple(map(float, getattr(processor, name))) for name in ("image_mean", "image_std"))
        resample = int(getattr(processor, "resample", 3) or 3)
        assert len(mean) == 3 and len(std) == 3
        return Framing(size=size, aspect=aspect, mean=mean, std=std, resample=resample)

    @cached_property
    def _grid(self) -> tuple[int, int]:
        """Side of the tower's pictures in pixels, and of a patch."""
        config = self.tower_config
        patch = _side(config.patch_size)
        if str(config.model_type).startswith("siglip2"):
            return round(float(config.num_patches) ** 0.5) * patch, patch
        return _side(config.image_size), patch

    @cached_property
    def image_tokens(self) -> int:
        """Tokens that an image becomes; the built model is held against it."""
        connector = self.section.connector
        if connector.name in ("resampler", "c_abstractor", "pyramid_c_abstractor"):
            return connector.queries
        size, patch = self._grid
        config = self.tower_config
        no_cls = str(config.model_type).startswith("siglip")
        before = 0 if no_cls or self.section.cls != "keep" else 1 + int(getattr(config, "num_register_tokens", 0))
        if connector.name == "pixel_shuffle":
            return (size // patch // connector.by) ** 2
        return (size // patch) ** 2 + before

    def random_parts(self) -> list[str]:
        """Return the parts that are built random: those from a configuration."""
        named = {"llm": self.section.llm, "tower": self.section.tower}
        return [name for name, reference in named.items() if reference.config is not None]

    @property
    def arguments(self) -> dict[str, Any]:
        """What the model is built with beside its decoder, its tower and the seed, as JSON values."""
        section = self.section
        found: dict[str, Any] = {
            "connector": section.connector.name,
            "connector_options": section.connector.options,
            "layer": section.feature_layer,
            "cls": section.cls,
        }
        for name in ("pyramid", "language_drop"):
            settings = getattr(section, name)
            if settings is not None:
                found[name] = settings.model_dump(mode="json")
        return found

    def build(self, *, seed: int, experts: bool = True) -> VisionLanguageModel:
        """Return the model on the CPU.

        Args:
            seed: draws what is not loaded.
            experts: False leaves the feed-forward layers as they are, to be made into experts once they are filled.

        Raises:
            ConfigError: an image becomes another number of tokens than its configuration tells.
        """
        section = self.section
        model = build_vision_language(
            llm=section.llm,
            tower=section.tower,
            connector=section.connector.name,
            connector_options=section.connector.options,
            layer=section.feature_layer,
            cls=section.cls,
            pyramid=section.pyramid,
            rotary_2d=section.rotary_2d,
            language_drop=section.language_drop,
            image_token=self.image_token,
            seed=seed,
            **self._places,
        )
        if experts:
            self.add_experts(model, seed=seed)
        if section.connector.pretrained is not None:
            load_connector_into(model, section.connector.pretrained, **self._places)
        if model.image_tokens != self.image_tokens and not is_file_reference(section.connector.name):
            raise ConfigError(
                f"an image becomes {model.image_tokens} tokens, where the configuration of {section.tower.label} tells "
                f"{self.image_tokens}; set model.cls to drop"
            )
        return model

    def add_experts(self, model: VisionLanguageModel, *, seed: int) -> None:
        """Make feed-forward layers of the language model into experts, where the study asks for them."""
        if self.section.experts is not None:
            add_experts(model.llm, self.section.experts, seed=seed)

    def languages(self, names: Sequence[str]) -> Tensor | None:
        """Return the numbers of languages among the experts, int64 (N,); None without experts. Unknown ones are 0."""
        if self.section.experts is None:
            return None
        known = self.section.experts.languages
        return torch.tensor([known.index(name) if name in known else 0 for name in names])

    def nats(self, model: VisionLanguageModel, rows: Rows, framing: Framing) -> Tensor:
        """Return the summed nats of the supervised tokens of some rows."""
        device = next(model.parameters()).device
        packed, pixels, features = rows.packed, rows.pixels, rows.features
        if self.section.experts is not None:
            spoken = rows.spoken(self.section.experts.languages).to(device)
            set_languages(model.llm, spoken, mask=packed.segments.to(device) > 0)
        total: Tensor = model(
            packed.ids.to(device),
            pixels=None if pixels is None else normalise(pixels.to(device), framing),
            features=None if features is None else features.to(device),
            attention_mask=packed.mask().to(device),
            position_ids=packed.positions.to(device),
            labels=packed.labels.to(device),
        )
        return total


def _side(value: Any) -> int:
    return int(value[0] if isinstance(value, list | tuple) else value)
