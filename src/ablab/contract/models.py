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
