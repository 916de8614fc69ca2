"""Sizes by arithmetic are those of the models that transformers builds, and memory is the sum of what is held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from ablab.contract.training import Trainability
from ablab.models.connectors import build_connector
from ablab.models.parts import apply_trainability
from ablab.tasks.vision_language.config import Phase
from ablab.tasks.vision_language.sections import Data, Model
from ablab.tasks.vision_language.structure import sizes

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
    "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 300,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 28,
    "patch_size": 7,
}  # fmt: skip


def built(config: Mapping[str, Any], *, language: bool) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    options = dict(config)
    made = AutoConfig.for_model(options.pop("model_type"), **options)
    with torch.device("meta"):
        return (AutoModelForCausalLM if language else AutoModel).from_config(made)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("tied", [False, True])
def test_a_decoder_has_the_parameters_of_its_class(tied: bool) -> None:
    config = LLAMA | {"tie_word_embeddings": tied}
    assert sizes.decoder_parameters(config) == count(built(config, language=True))


def test_the_decoder_of_internvl_has_those_that_are_published() -> None:
    known = sizes.DECODERS["OpenGVLab/InternVL2_5-8B"]
    assert sizes.decoder_parameters(known) == count(built(known, language=True)) == 7_737_782_272
    assert sizes.tower_parameters(sizes.TOWERS["OpenGVLab/InternVL2_5-8B"]) == pytest.approx(304.01e6, rel=1e-3)


@pytest.mark.parametrize("kind", ["clip_vision_model", "internvl_vision"])
def test_a_tower_has_about_the_parameters_of_its_class(kind: str) -> None:
    config = VISION | {"model_type": kind}
    if kind == "internvl_vision":
        config |= {"attention_bias": True, "image_size": [28, 28], "patch_size": [7, 7]}
    told = sizes.tower_parameters(VISION | {"model_type": kind})
    assert told == pytest.approx(count(built(config, language=False)), rel=0.01)


def test_adapters_are_as_many_as_are_put_there() -> None:
    settings = Trainability(mode="lora", rank=4, from_layer=1)
    model = torch.nn.Module()
    model.llm = built(LLAMA, language=True).to_empty(device="cpu")
    (row,) = apply_trainability(model, {"llm": settings})
    model_section = Model(llm={"config": LLAMA}, tower={"config": VISION | {"model_type": "clip_vision_model"}})
    phase = Phase(mixture={"a": 1}, steps=1, parts={"llm": settings})
    parts = sizes.parts_of(model_section, phase)
    assert parts is not None and parts["llm"].trained == row.trained


def test_the_connector_of_internvl_is_told_about_right() -> None:
    section = Model(llm={"config": LLAMA}, tower={"config": VISION | {"model_type": "clip_vision_model"}},
                    connector={"name": "pixel_shuffle"})  # fmt: skip
    made = build_connector("pixel_shuffle", vision_width=64, language_width=64, patches=16)
    assert sizes.connector_parameters(section, 64, 64) == pytest.approx(count(made), rel=0.05)


def held(**parts: Any) -> Mapping[str, int]:
    section = Model(llm={"config": LLAMA}, tower={"config": VISION | {"model_type": "clip_vision_model"}})
    phase = Phase(mixture={"a": 1}, steps=1, precision="fp32", parts=parts)
    told = sizes.memory(section, Data(generated={}), phase)
    assert told is not None and told.total == sum(told.items.values())
    return told.items


def test_what_trains_costs_its_gradient_and_two_moments() -> None:
    whole = held()
    assert whole["gradients"] == whole["weights"] and whole["optimiser"] == 2 * whole["gradients"]
    frozen = held(llm={"mode": "frozen"}, tower={"mode": "frozen"})
    assert frozen["weights"] == whole["weights"]
    assert frozen["gradients"] == 4 * sizes.connector_parameters(
        Model(llm={"config": LLAMA}, tower={"config": VISION | {"model_type": "clip_vision_model"}}), 64, 64
    )
    adapted = held(llm={"mode": "qlora", "rank": 2}, tower={"mode": "frozen"})
    assert adapted["weights"] < whole["weights"]


def test_of_an_unknown_model_nothing_is_told() -> None:
    section = Model(llm="somebody/something", tower="openai/clip-vit-large-patch14-336")
    assert sizes.memory(section, Data(generated={}), Phase(mixture={"a": 1}, steps=1)) is None
