"""A causal language model that sees: tower, connector and decoder, features spliced in where image tokens stand.

Any decoder and any tower of transformers; one class for training (summed nats of the supervised tokens, whose logits
alone are computed), for evaluation (logits) and for generation with cache. Rows may hold several packed samples: an
explicit mask keeps attention inside each, and position ids start again with each; position ids alone would leak.
What trains of the three parts is `ablab.models.parts`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError, DataError
from ablab.contract.models import LanguageDropSettings, ModelReference, PyramidSettings
from ablab.contract.seeds import stream_seed
from ablab.models.attention_hooks import base_implementation
from ablab.models.connectors import build_connector
from ablab.models.connectors.pyramid import PyramidConnector
from ablab.models.experts import auxiliary_losses, set_languages
from ablab.models.heads import divided_head
from ablab.models.hub import load_model
from ablab.models.language_drop import LanguageDrop, attach_language_drop
from ablab.models.loss import IGNORE, linear_cross_entropy
from ablab.models.pyramid import Dropping
from ablab.models.vision.rotary2d import add_rotary_2d
from ablab.models.vision.tower import Select, Tower


def build_vision_language(
    *,
    llm: ModelReference,
    tower: ModelReference,
    connector: str = "mlp2x_gelu",
    connector_options: Mapping[str, Any] | None = None,
    layer: int = -2,
    cls: Select = "auto",
    pyramid: PyramidSettings | None = None,
    rotary_2d: bool = False,
    language_drop: LanguageDropSettings | None = None,
    image_token: int,
    seed: int,
    **places: Any,
) -> VisionLanguageModel:
    """Return a model of three parts on the CPU: decoder and tower loaded or drawn, the connector drawn from the seed.

    Args:
        llm: causal language model.
        tower: vision tower.
        connector: its name, see `ablab.models.connectors`.
        connector_options: of the connector.
        layer: hidden state of the tower that is read.
        cls: what becomes of tokens that are no patch.
        pyramid: scales of several layers instead of the one of `layer`.
        rotary_2d: turn the tower's q and k by row and column.
        language_drop: drop image tokens between layers of the language model.
        image_token: id that stands for one feature of an image in the input; it need not be in the vocabulary.
        seed: draws what is not loaded, each part from a stream of its own name.
        **places: inputs, revisions, study_folder as in `ablab.models.hub.load_model`.
    """
    language = load_model(llm, kind="causal", seed=seed, role="llm", **places)
    vision = load_model(tower, kind="vision", seed=seed, role="tower", **places)
    label = f"tower {tower.label}"
    if rotary_2d:
        add_rotary_2d(vision, part=label)
    listen = pyramid is not None and pyramid.dropping is not None and pyramid.dropping.by == "attention"
    read: int | tuple[int, ...] = layer if pyramid is None else pyramid.layers
    seeing = Tower(vision, layer=read, cls=cls, listen=listen, label=label)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initialisation/connector"))
        sizes: dict[str, Any] = {
            "language_width": int(language.config.get_text_config().hidden_size),
            "patches": seeing.tokens,
            "folder": places.get("study_folder"),
        }
        if pyramid is None:
            between = build_connector(connector, vision_width=seeing.width, **sizes, **(connector_options or {}))
        else:
            between = PyramidConnector(
                vision_width=seeing.width // len(pyramid.layers),
                name=connector,
                options=connector_options or {},
                scales=pyramid.scales,
                fusion=pyramid.fusion,
                dropping=None
                if pyramid.dropping is None
                else Dropping(**pyramid.dropping.model_dump(exclude={"warmup"})),
                **sizes,
            )
    drop = None
    if language_drop is not None:
        drop = attach_language_drop(
            language, before=language_drop.before, keep=language_drop.keep, part=f"llm {llm.label}"
        )
    return VisionLanguageModel(
        llm=language, tower=seeing, connector=between, image_token=image_token, language_drop=drop
    )


def _dropping(pyramid: PyramidSettings) -> Dropping | None:
    settings = pyramid.dropping
    return None if settings is None else Dropping(**settings.model_dump(exclude={"warmup"}))


class VisionLanguageModel(nn.Module):
    """Parts `llm`, `tower` and `connector`.

    Args:
        llm: causal language model of transformers.
        tower: features of images.
        connector: features to inputs of the language model.
        image_token: id that stands for one feature of an image.
        language_drop: drops image tokens inside the language model; None where nothing does.
    """

    def __init__(
        self,
        *,
        llm: nn.Module,
        tower: Tower,
        connector: nn.Module,
        image_token: int,
        language_drop: LanguageDrop | None = None,
    ) -> None:
        super().__init__()
        self._drop = language_drop
        self.llm: Any = llm
        self.tower, self.connector = tower, connector
        self.image_token = image_token

    @property
    def config(self) -> Any:
        """Configuration of the language model, as generation asks for it."""
        return self.llm.config

    @property
    def generation_config(self) -> Any:
        """How the language model generates by default."""
        return self.llm.generation_config

    @property
    def image_tokens(self) -> int:
        """Tokens an image becomes."""
        return int(getattr(self.connector, "tokens", self.tower.tokens))

    def forward(
        self,
        input_ids: Tensor,
        *,
        pixels: Tensor | None = None,
        features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Return the summed nats of the labels, fp32 scalar, or without labels the logits (B, T, V).

        Args:
            input_ids: int64 (B, T); each image stands as `image_tokens` times the image token.
            pixels: normalised (N, 3, S, S), all images in the order of the rows.
            features: of the tower (N, F, V) instead of pixels, from a cache.
            attention_mask: of tokens that are no padding (B, T), or bool (B, 1, T, T): who sees whom, for packed rows.
            position_ids: int64 (B, T); needed with a mask of four dimensions.
            labels: int64 (B, T), the token itself where it is predicted (from the one before), -100 elsewhere.

        Raises:
            DataError: image tokens and features do not match in number.
        """
        embedded = self.embed(input_ids, pixels=pixels, features=features)
        if self._drop is not None and labels is not None:
            # What follows the instruction may not rank the images: its first answer ends where labels begin.
            self._drop.mark(input_ids == self.image_token, last=(labels != IGNORE).int().argmax(1).sub(1).clamp_min(0))
        given = {"attention_mask": self._mask(attention_mask, embedded), "position_ids": position_ids}
        if labels is None:
            logits: Tensor = self.llm(inputs_embeds=embedded, use_cache=False, **given).logits
            return logits
        targets = labels[:, 1:]
        kept = targets != IGNORE
        total = self._nats(embedded, given, kept, targets[kept])
        if self.training and torch.is_grad_enabled() and not total.requires_grad:
            # A batch of text alone, while only what sees trains: no gradient is a gradient of zero.
            total = total + 0.0 * sum(p.sum() for p in self.parameters() if p.requires_grad)
        return total

    def _nats(self, embedded: Tensor, given: Mapping[str, Any], kept: Tensor, targets: Tensor) -> Tensor:
        found = divided_head(self.llm)
        if found is None:
            logits = self.llm(inputs_embeds=embedded, use_cache=False, **given).logits[:, :-1]
            return nn.functional.cross_entropy(logits[kept].float(), targets, reduction="sum")
        states = self.llm.get_decoder()(inputs_embeds=embedded, use_cache=False, **given).last_hidden_state
        head, divisor = found
        states, weight = states[:, :-1][kept] / divisor, head.weight
        if head.bias is not None:  # Phi-2: one more input that is always one
            states = torch.cat([states, states.new_ones(states.size(0), 1)], dim=1)
            weight = torch.cat([weight, head.bias.unsqueeze(1)], dim=1)
        return linear_cross_entropy(states, weight, targets)

    def embed(
        self,
        input_ids: Tensor,
        *,
        pixels: Tensor | None = None,
        features: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Return the inputs of the language model (B, T, D): embedded tokens, images in their places.

        Args:
            input_ids: as in `forward`.
            pixels: of all images; or `features` of the tower, or `seen`, what `see` made of them (N, Q, D).
            features: instead of pixels.
            seen: instead of both.

        Raises:
            DataError: image tokens and features do not match in number.
        """
        places = input_ids == self.image_token
        if self._drop is not None:
            self._drop.mark(places if bool(places.any()) else None)
        # The image token is never looked up: it may lie outside the vocabulary.
        embedded: Tensor = self.llm.get_input_embeddings()(input_ids.masked_fill(places, 0))
        if pixels is None and features is None and seen is None:
            self._check(int(places.sum()), 0, 0)
            return embedded
        inputs = self.see(pixels, features=features) if seen is None else seen
        self._check(int(places.sum()), inputs.size(0), inputs.size(1))
        return embedded.masked_scatter(places.unsqueeze(-1), inputs.to(embedded.dtype).flatten(0, 1))

    def see(self, pixels: Tensor | None, *, features: Tensor | None = None) -> Tensor:
        """Return what images become (N, Q, D), of pixels or of cached features."""
        if features is None:
            assert pixels is not None
            features = self.tower(pixels)
        weight = next(self.connector.parameters(), None)
        features = features if weight is None else features.to(weight.dtype)
        if isinstance(self.connector, PyramidConnector) and self.connector.listens:
            if pixels is None:
                raise ConfigError("dropping by attention needs the images themselves; cached features have none")
            made: Tensor = self.connector(features, received=self.tower.received)
        else:
            made = self.connector(features)
        return made

    def _check(self, places: int, images: int, tokens: int) -> None:
        if places != images * tokens:
            raise DataError(
                f"{places} image tokens in the input, but {images} images of {tokens} features each ({images * tokens})"
            )

    def _mask(self, mask: Tensor | None, embedded: Tensor) -> Tensor | None:
        """Return the mask as the attention implementation at hand reads it."""
        if mask is None or mask.dim() == 2:
            return mask
        kind = base_implementation(self.llm)
        if kind == "sdpa":
            return mask.bool()
        if kind == "eager":
            zero = torch.zeros((), dtype=embedded.dtype, device=embedded.device)
            return torch.where(mask.bool(), zero, torch.finfo(embedded.dtype).min)
        if kind.startswith("flash_attention"):
            return None  # finds the samples of a row by where the position ids start again
        raise ConfigError(f"packed rows need attention sdpa, eager or flash_attention_2; this model has {kind}")

    def auxiliary_losses(self) -> dict[str, Tensor]:
        """Return mean losses of the last call that stand beside the likelihood, by name."""
        found: dict[str, Tensor] = {}
        for name, module in self.named_modules():
            value = getattr(module, "auxiliary", None)
            if isinstance(value, Tensor):
                found[f"{name.partition('.')[0]}-balance"] = found.get(f"{name.partition('.')[0]}-balance", 0.0) + value
        return found | auxiliary_losses(self.llm)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the activations of each layer in the backward pass."""
        options = {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
        self.llm.gradient_checkpointing_enable(**options)
        if self.tower.trains:
            self.tower.model.gradient_checkpointing_enable(**options)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        *,
        pixels: Tensor | None = None,
        features: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        image_places: Tensor | None = None,
        languages: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Return the generated tokens alone, int64 (B, new), with cache; options are transformers' (num_beams, ...).

        Args:
            input_ids: prompts (B, T), padded on the left.
            pixels: of all images, in the order of the rows; or `features` of the tower.
            features: instead of pixels.
            inputs_embeds: what `embed` made, instead of all these.
            image_places: where images stand in them, bool (B, T); read only where image tokens are dropped.
            languages: number of each row's language (B,), for language experts.
            attention_mask: of tokens that are no padding (B, T).
            **options: of transformers' generate.
        """
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed(input_ids, pixels=pixels, features=features)
        elif self._drop is not None:
            self._drop.mark(image_places)
        if languages is not None:
            set_languages(self.llm, languages, mask=attention_mask)
        made: Tensor = self.llm.generate(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **options)
        return made
