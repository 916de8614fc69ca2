"""Our own PreTrainedModel, for what no class of transformers holds: any decoder, tower and connector in one folder.

    from ablab.models.pretrained import VisionLanguagePreTrained
    model = VisionLanguagePreTrained.from_pretrained(folder)

Imported only where such a model is saved or loaded, since it imports transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ablab.contract.experts import ExpertSettings
from ablab.contract.failure import DataError
from ablab.contract.models import LanguageDropSettings, ModelReference, PyramidSettings
from ablab.models.experts import ENTRY as EXPERTS
from ablab.models.experts import add_experts
from ablab.models.vision_language import VisionLanguageModel, build_vision_language


class VisionLanguageConfig(PretrainedConfig):
    """Configurations of decoder and tower, and the arguments of `build_vision_language` beside them."""

    model_type = "ablab_vision_language"

    def __init__(
        self,
        llm: dict[str, Any] | None = None,
        tower: dict[str, Any] | None = None,
        arguments: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        self.llm, self.tower, self.arguments = llm or {}, tower or {}, arguments or {}
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
        if inner is not None:
            # transformers draws modules anew that it did not build itself: connector, routers, experts.
            for module in inner.modules():
                setattr(module, "_is_hf_initialized", True)  # noqa: B010 - torch types attributes as tensors
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_pretrained(cls, *given: Any, output_loading_info: bool = False, **options: Any) -> Any:
        """Return a model complete, as transformers' own method takes its arguments.

        Raises:
            DataError: weights are missing, left over or of another shape; transformers would draw them at random.
        """
        found: Any = super().from_pretrained(*given, output_loading_info=True, **options)
        model, report = found
        wrong = sorted(str(name) for kind in ("missing_keys", "unexpected_keys") for name in report[kind])
        wrong += [str(name) for name, *_ in report["mismatched_keys"]]
        if wrong:
            raise DataError(f"{given[0]}: {len(wrong)} weights do not fit the configuration ({', '.join(wrong[:3])})")
        return (model, report) if output_loading_info else model

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
    given = dict(config.arguments)
    pyramid, drop = given.pop("pyramid", None), given.pop("language_drop", None)
    if pyramid is not None:
        given["pyramid"] = PyramidSettings.model_validate(pyramid)
    if drop is not None:
        given["language_drop"] = LanguageDropSettings.model_validate(drop)
    model = build_vision_language(
        llm=ModelReference(config=config.llm),
        tower=ModelReference(config=config.tower),
        seed=0,
        study_folder=config.name_or_path or None,
        **given,
    )
    experts = config.llm.get(EXPERTS)
    if experts is not None:
        add_experts(model.llm, ExpertSettings.model_validate(experts))
    return model


def save_own(model: VisionLanguageModel, folder: Path, *, arguments: Mapping[str, Any]) -> None:
    """Write a model into a folder that `VisionLanguagePreTrained.from_pretrained` reads.

    Args:
        model: without adapters.
        folder: created when missing.
        arguments: of `build_vision_language`, as JSON values, beside llm, tower and seed.
    """
    config = VisionLanguageConfig(
        llm=model.llm.config.to_dict(),
        tower=model.tower.model.config.to_dict(),
        arguments={"image_token": model.image_token, **arguments},
    )
    with torch.no_grad():
        VisionLanguagePreTrained(config, inner=model).save_pretrained(folder)
