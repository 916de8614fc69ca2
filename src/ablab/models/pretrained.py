"""Our own PreTrainedModel, for what no class of transformers holds: any decoder, tower and connector in one folder.

    from ablab.models.pretrained import VisionLanguagePreTrained
    model = VisionLanguagePreTrained.from_pretrained(folder)

Imported only where such a model is saved or loaded, since it imports transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from ablab.contract.registry import is_file_reference
from ablab.models.connectors import build_connector
from ablab.models.vision.rotary2d import restore_rotary_2d
from ablab.models.vision.tower import Tower
from ablab.models.vision_language import VisionLanguageModel


class VisionLanguageConfig(PretrainedConfig):
    """Configurations of the parts and how they are put together."""

    model_type = "ablab_vision_language"

    def __init__(
        self,
        llm: dict[str, Any] | None = None,
        tower: dict[str, Any] | None = None,
        connector: str = "mlp2x_gelu",
        connector_options: dict[str, Any] | None = None,
        layers: list[int] | None = None,
        cls: str = "auto",
        image_token: int = -1,
        **more: Any,
    ) -> None:
        self.llm, self.tower = llm or {}, tower or {}
        self.connector, self.connector_options = connector, connector_options or {}
        self.layers, self.cls, self.image_token = layers or [-2], cls, image_token
        super().__init__(**more)


class VisionLanguagePreTrained(PreTrainedModel):
    """A `VisionLanguageModel` in the dress of transformers: save_pretrained and from_pretrained."""

    config_class = VisionLanguageConfig
    base_model_prefix = "inner"
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config: VisionLanguageConfig, *, inner: VisionLanguageModel | None = None) -> None:
        super().__init__(config)
        self.inner = _built(config) if inner is None else inner
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def all_tied_weights_keys(self) -> dict[str, str]:
        """Names of tied tensors, those of the language model."""
        tied = getattr(self.inner.llm, "all_tied_weights_keys", {}) if hasattr(self, "inner") else {}
        return {f"inner.llm.{name}": f"inner.llm.{other}" for name, other in tied.items()}

    @all_tied_weights_keys.setter
    def all_tied_weights_keys(self, value: dict[str, str]) -> None:
        """Leave what transformers sets: it is the language model's."""

    def _init_weights(self, module: Any) -> None:
        """Leave the parts as they were built."""

    def forward(self, input_ids: Tensor, pixel_values: Tensor | None = None, **options: Any) -> Tensor:
        """Return logits, or with labels the summed nats; options as `VisionLanguageModel.forward`."""
        made: Tensor = self.inner(input_ids, pixels=pixel_values, **options)
        return made

    def generate(self, input_ids: Tensor, pixel_values: Tensor | None = None, **options: Any) -> Tensor:
        """Return the generated tokens alone."""
        return self.inner.generate(input_ids, pixels=pixel_values, **options)


def _built(config: VisionLanguageConfig) -> VisionLanguageModel:
    """Return the model that a configuration describes, its weights still to be loaded."""
    llm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config.llm))
    vision = AutoModel.from_config(AutoConfig.for_model(**config.tower))
    restore_rotary_2d(vision)
    tower = Tower(vision, layer=config.layers, cls=config.cls)  # type: ignore[arg-type]
    folder = config.name_or_path if is_file_reference(config.connector) else None
    connector = build_connector(
        config.connector,
        vision_width=tower.width,
        language_width=int(llm.config.get_text_config().hidden_size),
        patches=tower.tokens,
        folder=folder,
        **config.connector_options,
    )
    return VisionLanguageModel(llm=llm, tower=tower, connector=connector, image_token=config.image_token)


def save_own(
    model: VisionLanguageModel, folder: Path, *, connector: str, connector_options: dict[str, Any] | None = None
) -> None:
    """Write a model into a folder that `VisionLanguagePreTrained.from_pretrained` reads.

    Args:
        model: without adapters.
        folder: created when missing.
        connector: its name, as a study writes it.
        connector_options: of the connector.
    """
    tower = model.tower
    config = VisionLanguageConfig(
        llm=_plain(model.llm.config),
        tower=_plain(tower.model.config),
        connector=connector,
        connector_options=dict(connector_options or {}),
        layers=list(tower.layers_read),
        cls="keep" if tower.kept else "drop",
        image_token=model.image_token,
    )
    with torch.no_grad():
        VisionLanguagePreTrained(config, inner=model).save_pretrained(folder)


def _plain(config: Any) -> dict[str, Any]:
    return dict(config.to_dict())
