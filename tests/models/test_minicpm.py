"""A MiniCPM checkpoint computes what its authors' code computes, with none of that code run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ablab.contract.failure import ConfigError
from ablab.contract.models import ModelReference
from ablab.models.hub import load_config, load_model
from ablab.models.minicpm import family_of, minicpm_config
from ablab.models.vision_language import build_vision_language

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 61, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
}  # fmt: skip
SCALES = {"scale_emb": 12, "dim_model_base": 8, "scale_depth": 1.4}


@pytest.fixture(scope="module")
def llama() -> Any:
    """A Llama whose weights the checkpoint has, every norm away from one."""
    config = {"model_type": "llama", **SIZES, "tie_word_embeddings": True}
    made: Any = load_model(ModelReference(config=config), kind="causal", seed=4)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.named_parameters():
        if "norm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.fixture(scope="module")
def folder(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as its authors publish it: tied head left out of config.json, code beside it."""
    path = tmp_path_factory.mktemp("minicpm")
    llama.save_pretrained(path)
    config = {**SIZES, **SCALES, "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm",
              "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    (path / "own.py").write_text("raise RuntimeError('code of the repository ran')")
    return path


def by_formula(llama: Any, embedded: Tensor) -> Tensor:
    """Logits of embeddings (1, T, D) by MiniCPM's three constants, layer by layer."""
    states = embedded * SCALES["scale_emb"]
    shared = SCALES["scale_depth"] / math.sqrt(len(llama.model.layers))
    length = states.size(1)
    turned = llama.model.rotary_emb(states, torch.arange(length)[None])
    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    for layer in llama.model.layers:
        attended, _ = layer.self_attn(layer.input_layernorm(states), position_embeddings=turned, attention_mask=mask)
        states = states + attended * shared
        states = states + layer.mlp(layer.post_attention_layernorm(states)) * shared
    logits: Tensor = llama.lm_head(llama.model.norm(states) / (SIZES["hidden_size"] / SCALES["dim_model_base"]))
    return logits


@torch.no_grad()
def test_logits_are_those_of_the_formula(llama: Any, folder: Path, tokens: Tensor) -> None:
    ids = tokens[:1] % SIZES["vocab_size"]
    loaded: Any = load_model(str(folder), kind="causal")
    expected = by_formula(llama, llama.model.embed_tokens(ids))
    torch.testing.assert_close(loaded(ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(llama(ids).logits, expected, atol=1e-2)


@torch.no_grad()
def test_the_loss_beside_images_is_that_of_the_logits(llama: Any, folder: Path) -> None:
    tower = {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
             "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
    model = build_vision_language(
        llm=ModelReference(name=str(folder)), tower=ModelReference(config=tower), image_token=61, seed=1
    )
    ids = torch.tensor([[1, 61, 61, 61, 61, 7, 9, 11]])
    labels = torch.tensor([[-100] * 6 + [9, 11]])
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    logits = by_formula(llama, model.embed(ids, pixels=pixels))
    expected = torch.nn.functional.cross_entropy(logits[0, 5:7], labels[0, 6:], reduction="sum")
    torch.testing.assert_close(model(ids, pixels=pixels, labels=labels), expected, rtol=1e-4, atol=1e-4)


def test_it_stays_known_for_what_it_is(folder: Path) -> None:
    assert family_of(load_config(ModelReference(name=str(folder)))) == "minicpm"
    assert family_of(load_model(str(folder), kind="causal").config) == "minicpm"


def test_a_variant_that_is_computed_otherwise_is_refused() -> None:
    with pytest.raises(ConfigError, match="rope_scaling"):
        minicpm_config({**SIZES, **SCALES, "rope_scaling": {"type": "longrope"}})
