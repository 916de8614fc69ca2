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
from ablab.contract.models import ModelReference
from ablab.contract.seeds import stream_seed
from ablab.models.connectors import build_connector
from ablab.models.hub import load_model
from ablab.models.loss import IGNORE, linear_cross_entropy
from ablab.models.vision.tower import Select, Tower

#: Decoders whose logits are their head's product and nothing else, so that it can be taken of a few positions.
_PLAIN_HEADS = frozenset({
    "llama", "mistral", "qwen2", "qwen3", "gemma", "stablelm", "phi", "phi3", "gpt2", "gpt_neox", "opt", "smollm3",
})  # fmt: skip


def build_vision_language(
    *,
    llm: ModelReference,
    tower: ModelReference,
    connector: str = "mlp2x_gelu",
    connector_options: Mapping[str, Any] | None = None,
    layer: int = -2,
    cls: Select = "auto",
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
        image_token: id that stands for one feature of an image in the input; it need not be in the vocabulary.
        seed: draws what is not loaded, each part from a stream of its own name.
        **places: inputs, revisions, study_folder as in `ablab.models.hub.load_model`.
    """
    language = load_model(llm, kind="causal", seed=seed, role="llm", **places)
    vision = load_model(tower, kind="vision", seed=seed, role="tower", **places)
    seeing = Tower(vision, layer=layer, cls=cls, label=f"tower {tower.label}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initialisation/connector"))
        between = build_connector(
            connector,
            vision_width=seeing.width,
            language_width=int(language.config.get_text_config().hidden_size),
            patches=seeing.tokens,
            folder=places.get("study_folder"),
            **(connector_options or {}),
        )
    return VisionLanguageModel(llm=language, tower=seeing, connector=between, image_token=image_token)


class VisionLanguageModel(nn.Module):
    """Parts `llm`, `tower` and `connector`.

    Args:
        llm: causal language model of transformers.
        tower: features of images.
        connector: features to inputs of the language model.
        image_token: id that stands for one feature of an image.
    """

    def __init__(self, *, llm: nn.Module, tower: Tower, connector: nn.Module, image_token: int) -> None:
        super().__init__()
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
        head = self._plain_head()
        if head is None:
            logits = self.llm(inputs_embeds=embedded, use_cache=False, **given).logits[:, :-1]
            return nn.functional.cross_entropy(logits[kept].float(), targets, reduction="sum")
        states = self.llm.get_decoder()(inputs_embeds=embedded, use_cache=False, **given).last_hidden_state
        states, weight = states[:, :-1][kept], head.weight
        if head.bias is not None:  # Phi-2: one more input that is always one
            states = torch.cat([states, states.new_ones(states.size(0), 1)], dim=1)
            weight = torch.cat([weight, head.bias.unsqueeze(1)], dim=1)
        return linear_cross_entropy(states, weight, targets)

    def _plain_head(self) -> nn.Linear | None:
        """Return the head where logits are its product; None where the model does more to them, or an adapter does."""
        head = self.llm.get_output_embeddings()
        scaled = getattr(self.config, "final_logit_softcapping", None) or getattr(self.config, "logit_scale", None)
        plain = self.config.model_type in _PLAIN_HEADS and type(head) is nn.Linear and not scaled
        return head if plain else None

    def embed(self, input_ids: Tensor, *, pixels: Tensor | None = None, features: Tensor | None = None) -> Tensor:
        """Return the inputs of the language model (B, T, D): embedded tokens, images in their places.

        Raises:
            DataError: image tokens and features do not match in number.
        """
        places = input_ids == self.image_token
        # The image token is never looked up: it may lie outside the vocabulary.
        embedded: Tensor = self.llm.get_input_embeddings()(input_ids.masked_fill(places, 0))
        if pixels is None and features is None:
            self._check(int(places.sum()), 0, 0)
            return embedded
        inputs = self.see(pixels, features=features)
        self._check(int(places.sum()), inputs.size(0), inputs.size(1))
        return embedded.masked_scatter(places.unsqueeze(-1), inputs.to(embedded.dtype).flatten(0, 1))

    def see(self, pixels: Tensor | None, *, features: Tensor | None = None) -> Tensor:
        """Return what images become (N, Q, D), of pixels or of cached features."""
        if features is None:
            assert pixels is not None
            features = self.tower(pixels)
        weight = next(self.connector.parameters(), None)
        made: Tensor = self.connector(features if weight is None else features.to(weight.dtype))
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
        kind = self.config._attn_implementation
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
        return found

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
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Return the generated tokens alone, int64 (B, new), with cache; options are transformers' (num_beams, ...).

        Args:
            input_ids: prompts (B, T), padded on the left.
            pixels: of all images, in the order of the rows; or `features` of the tower.
            features: instead of pixels.
            inputs_embeds: what `embed` made, instead of all these.
            attention_mask: of tokens that are no padding (B, T).
            **options: of transformers' generate.
        """
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed(input_ids, pixels=pixels, features=features)
        made: Tensor = self.llm.generate(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **options)
        return made
