"""How a study names a model, and how it says what of it trains; no torch, so that the control plane reads them too.

Loading is `ablab.models.hub`, freezing and adapters are `ablab.models.parts` and `ablab.models.adapters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.task import DataReference
from ablab.contract.training import Optimizer, ParameterGroup, Trainability

__all__ = ["ModelReference", "Trainability", "model_references", "part_groups"]


class ModelReference(Strict):
    """Where a model comes from: the hub, a folder, another stage, or a configuration built small and random.

    Exactly one of name, stage and config is given. A text stands for a name: `llm: HuggingFaceTB/SmolLM2-135M`.
    """

    name: str | None = setting(
        None, "Hub name (owner/name), or a folder in transformers' format beginning with ./, ../, / or ~."
    )
    stage: str | None = setting(
        None, "Name of a stage this one needs that leaves a model in transformers' format as its artifact `model`."
    )
    config: dict[str, Any] | None = setting(
        None, "Configuration by transformers' names, model_type included: built random from the stage's seed."
    )
    revision: str | None = setting(None, "Hub revision; null takes the lock file's.")
    gated: bool = setting(False, "The hub asks for a licence and a token.", keyed=False)
    trust_remote_code: bool = setting(False, "Run code that the hub repository brings; only where it is named here.")
    dtype: Literal["fp32", "bf16", "fp16"] = setting(
        "fp32", "Type the weights are held in; what trains is better held in fp32."
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = setting(
        "auto", "Attention implementation of transformers.", keyed=False
    )

    @model_validator(mode="before")
    @classmethod
    def _text_is_a_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        """Return the schema for editors: a block, or a text."""
        block = handler(core)
        place = handler.resolve_ref_schema(block)
        inner = dict(place)
        place.clear()
        place.update({"title": "ModelReference", "anyOf": [{"type": "string"}, inner]})
        return block  # type: ignore[no-any-return]

    @model_validator(mode="after")
    def _one_origin(self) -> ModelReference:
        if sum(value is not None for value in (self.name, self.stage, self.config)) != 1:
            raise ValueError("give exactly one of name (hub or folder), stage and config")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError(
                "config needs model_type, transformers' name of the architecture (llama, clip_vision_model)"
            )
        if self.name is None and (self.revision is not None or self.trust_remote_code):
            raise ValueError("revision and trust_remote_code belong to a name of the hub")
        return self

    @property
    def is_folder(self) -> bool:
        """Whether `name` is a folder."""
        return self.name is not None and self.name.startswith((".", "/", "~"))

    @property
    def label(self) -> str:
        """What it is, in a few words."""
        if self.config is not None:
            return f"{self.config['model_type']} from its configuration"
        return self.name or f"model of stage {self.stage}"


class DroppingSettings(Strict):
    """Dropping the least telling features of each scale (names as in `ablab.models.pyramid.Dropping`)."""

    rates: tuple[float, ...] = setting((0.5, 0.3, 0.1), "Share dropped of each scale, coarsest first.", min_length=1)
    by: Literal["attention", "random", "uniform"] = setting(
        "attention", "What goes first: the least looked at, any, or evenly over the image."
    )
    least: int = setting(64, "Features a scale keeps at least.", ge=1)
    block: int = setting(2, "Side of the blocks that go together; 2 where pixels are shuffled later.", ge=1)
    warmup: int = setting(2000, "Steps over which the rates grow from 0 while training.", ge=0, unit="steps")

    @model_validator(mode="after")
    def _rates_are_shares(self) -> DroppingSettings:
        wrong = [rate for rate in self.rates if not 0 <= rate < 1]
        if wrong:
            raise ValueError(f"rates lie in [0, 1); found {wrong[0]}")
        return self


class PyramidSettings(Strict):
    """Scales made of several layers of the tower."""

    layers: tuple[int, ...] = setting((8, 16, 24), "Layers that are read (1 is the first), coarsest scale first.")
    scales: tuple[float, ...] = setting((0.25, 0.5, 1.0), "Size of each scale's grid against the tower's.")
    fusion: Literal["concatenate", "average", "attention"] = setting(
        "concatenate", "How scales become one, at the finest grid; pyramid_c_abstractor takes them apart."
    )
    dropping: DroppingSettings | None = setting(None, "What is dropped of each scale.")

    @model_validator(mode="after")
    def _one_of_each(self) -> PyramidSettings:
        if len(self.layers) != len(self.scales):
            raise ValueError(f"{len(self.layers)} layers and {len(self.scales)} scales; one scale a layer")
        if self.dropping is not None and len(self.dropping.rates) != len(self.scales):
            raise ValueError(f"{len(self.dropping.rates)} drop rates and {len(self.scales)} scales; one rate a scale")
        wrong = [scale for scale in self.scales if not 0 < scale <= 1]
        if wrong:
            raise ValueError(f"scales lie in (0, 1]; found {wrong[0]}")
        return self


class LanguageDropSettings(Strict):
    """PyramidDrop inside the language model: fewer image tokens the deeper the layer."""

    before: tuple[int, ...] = setting((8, 16, 24), "Layers (0-based) before which image tokens are dropped.")
    keep: float = setting(0.5, "Share of the image tokens left that goes on each time.", gt=0, le=1)


def model_references(reference: ModelReference | None, *, path: str) -> list[DataReference]:
    """Return what a model reference reads from outside the store; its content enters the key.

    Args:
        reference: the model; None reads nothing.
        path: where in the study it stands, for messages (model.llm).
    """
    if reference is None or reference.name is None:
        return []
    if reference.is_folder:
        return [DataReference(kind="folder", name=reference.name, path=path)]
    return [
        DataReference(
            kind="hub",
            name=reference.name,
            path=path,
            revision=reference.revision,
            gated=reference.gated,
            repository="model",
        )
    ]


def part_groups(parts: Mapping[str, Trainability], optimizer: Optimizer) -> tuple[ParameterGroup, ...]:
    """Return the optimiser's rules: those the study wrote, then one for each part that has a rate of its own."""
    own = [
        ParameterGroup(
            pattern="*" if name == "all" else f"{name}.*", learning_rate=part.learning_rate / optimizer.learning_rate
        )
        for name, part in parts.items()
        if part.learning_rate is not None and part.mode != "frozen"
    ]
    return (*optimizer.groups, *own)
