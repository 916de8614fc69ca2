"""Adapters: products as peft forms them, no cross terms, and back to an adapter of the asked rank."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ablab.contract.failure import AblabError, DataError
from ablab.contract.merge import Merge
from ablab.merging.merge import Named, Report, merge_models
from ablab.models.low_rank import factor


def llama() -> nn.Module:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40, hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2,
        )
    )  # fmt: skip


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=24, n_layer=2, n_head=4, n_positions=16))


def train_adapter(folder: Path, model: nn.Module, *, seed: int, **options: object) -> Path:
    """Save an adapter whose every factor is random."""
    torch.manual_seed(seed)
    adapted = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 8, **options}))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.1)
        elif parameter.requires_grad:
            nn.init.normal_(parameter.data.add_(0), std=0.1)
    adapted.save_pretrained(folder)
    return folder


def run(root: Path, settings: Merge, target: str = "out") -> tuple[Path, Report]:
    named = [Named(label=name, folder=root / name) for name in settings.sources]
    base, models = (None, named) if settings.base is None else (named[0], named[1:])
    folder = root / target
    folder.mkdir()
    return folder, merge_models(settings, base=base, models=models, target=folder, seed=0)


def merged_by_peft(base: nn.Module, folder: Path) -> dict[str, torch.Tensor]:
    return PeftModel.from_pretrained(base, folder).merge_and_unload().state_dict()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (llama, {"target_modules": ["q_proj", "down_proj"]}),
        (llama, {"target_modules": ["v_proj"], "use_rslora": True}),
        (
            llama,
            {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"k_proj": 3}},
        ),
        (llama, {"target_modules": ["embed_tokens", "o_proj"]}),
        (llama, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
        (gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    ],
    ids=["plain", "rslora", "patterns", "embedding", "saved-modules", "transposed"],
)
def test_the_product_is_peft_s(tmp_path: Path, make: object, options: dict[str, object]) -> None:
    assert callable(make)
    make().save_pretrained(tmp_path / "base")
    train_adapter(tmp_path / "one", make(), seed=1, **options)
    settings = Merge.model_validate({"method": "task-arithmetic", "base": "base", "models": [{"model": "one"}]})
    folder, _ = run(tmp_path, settings)
    wanted = merged_by_peft(make(), tmp_path / "one")
    found = load_file(folder / "model.safetensors")
    assert found
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], atol=1e-6, rtol=1e-5)


def test_two_adapters_have_no_cross_terms(tmp_path: Path) -> None:
    base = llama()
    base.save_pretrained(tmp_path / "base")
    for seed, name in ((1, "one"), (2, "two")):
        train_adapter(tmp_path / name, llama(), seed=seed, target_modules=["q_proj"])
    settings = Merge.model_validate(
        {
            "method": "task-arithmetic", "base": "base",
            "models": [{"model": "one", "weight": 0.7}, {"model": "two", "weight": 0.3}],
        }
    )  # fmt: skip
    found = load_file(run(tmp_path, settings)[0] / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    plain = base.state_dict()[name]
    deltas = [merged_by_peft(llama(), tmp_path / each)[name] - plain for each in ("one", "two")]
    torch.testing.assert_close(found[name], plain + 0.7 * deltas[0] + 0.3 * deltas[1], atol=1e-6, rtol=1e-5)


def test_adapters_of_an_equal_sum_become_an_adapter_again(tmp_path: Path) -> None:
    base = llama()
    base.save_pretrained(tmp_path / "base")
    for seed, name in ((1, "one"), (2, "two")):
        train_adapter(tmp_path / name, llama(), seed=seed, target_modules=["q_proj", "up_proj"])
    models = [{"model": "one", "weight": 0.7}, {"model": "two", "weight": 0.3}]
    whole = Merge.model_validate({"method": "task-arithmetic", "base": "base", "models": models})
    again = Merge.model_validate({"method": "task-arithmetic", "models": models, "output": "adapter", "rank": 8})
    wanted = load_file(run(tmp_path, whole)[0] / "model.safetensors")
    folder, report = run(tmp_path, again, "adapter")
    # Two adapters of rank 4 make one of rank 8 without loss.
    assert max(report.errors.values()) < 1e-3
    found = merged_by_peft(llama(), folder)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (8, 8)


@pytest.mark.parametrize("size", [(60, 40), (700, 600)], ids=["whole", "randomised"])
def test_factors_are_the_best_of_their_rank(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    strong = torch.randn(size[0], 5, generator=generator) @ torch.randn(5, size[1], generator=generator)
    matrix = strong + 0.01 * torch.randn(*size, generator=generator)
    found = factor(matrix, 5, seed=1)
    values = torch.linalg.svdvals(matrix.double())
    best = float((values[5:].square().sum() / values.square().sum()).sqrt())
    lost = float((matrix - found.left @ found.right).norm() / matrix.norm())
    assert lost == pytest.approx(best, rel=1e-2)
    assert found.error == pytest.approx(lost, abs=1e-3)


def test_adapters_that_cannot_be_merged(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "base")
    one = train_adapter(tmp_path / "one", llama(), seed=1, target_modules=["q_proj"])
    settings = Merge.model_validate({"method": "task-arithmetic", "base": "base", "models": [{"model": "one"}]})
    tensors = load_file(one / "adapter_model.safetensors")

    def broken(changed: dict[str, torch.Tensor], message: str) -> None:
        save_file(changed, one / "adapter_model.safetensors")
        target = tmp_path / f"broken{len(list(tmp_path.iterdir()))}"
        with pytest.raises(AblabError, match=message):
            run(tmp_path, settings, target.name)

    broken(
        {name: torch.zeros_like(value) if "lora_B" in name else value for name, value in tensors.items()}, "untrained"
    )
    broken(
        {name.replace("q_proj", "wq"): value for name, value in tensors.items()}, "the nearest there is .*proj.weight"
    )
    broken(
        {name: value[:, :-1].contiguous() if "lora_A" in name else value for name, value in tensors.items()}, "shape"
    )
    broken({name: value for name, value in tensors.items() if "lora_A" not in name}, "has no .*lora_A")
    broken(
        {**tensors, "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector": torch.ones(3)},
        "of a kind",
    )
    save_file(tensors, one / "adapter_model.safetensors")
    run(tmp_path, settings, "sound")
    config = one / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_dora": True}))
    with pytest.raises(DataError, match="is DoRA; only LoRA"):
        run(tmp_path, settings, "dora")
