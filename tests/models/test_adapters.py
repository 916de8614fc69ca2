import copy

import pytest
import torch

from ablab.contract.failure import ConfigError, DataError
from ablab.models.adapters import add_lora, load_adapters, merge_adapters, resolve_targets, save_adapters
from ablab.models.quantization import dequantized, is_quantized


def train_a_little(model, tokens):
    """Make the adapters differ from their start."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name or "trainable_tokens_delta" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "kind", "attention", "feedforward"),
    [
        ("llama", "causal", {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}),
        ("t5", "seq2seq", {"q", "k", "v", "o"}, {"wi_0", "wi_1", "wo"}),
        ("bart", "seq2seq", {"q_proj", "k_proj", "v_proj", "out_proj"}, {"fc1", "fc2"}),
        ("clip_vision", "auto", {"q_proj", "k_proj", "v_proj", "out_proj"}, {"fc1", "fc2"}),
    ],
)
def test_targets_are_the_architectures_own_names(build, name, kind, attention, feedforward):
    model = build(name, kind=kind)

    def last(targets):
        return {found.rpartition(".")[2] for found in resolve_targets(model, targets)}

    assert last(["attention"]) == attention
    assert last(["feedforward"]) == feedforward
    assert last(None) == attention | feedforward
    assert last([sorted(attention)[0]]) == {sorted(attention)[0]}


def test_internlm2_names_are_found_on_a_module_that_has_them():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.ModuleDict({n: torch.nn.Linear(4, 4) for n in ("wqkv", "wo")})
            self.feed_forward = torch.nn.ModuleDict({n: torch.nn.Linear(4, 4) for n in ("w1", "w2", "w3")})

    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList([Layer(), Layer()])
    assert len(resolve_targets(model, ["wqkv", "w3"])) == 4
    with pytest.raises(ConfigError, match=r"'q_proj' matches no matrix.*wqkv, wo, w1, w2, w3"):
        resolve_targets(model, ["wqkv", "q_proj"])


def test_a_name_that_matches_nothing_is_an_error_even_beside_one_that_does(build):
    with pytest.raises(ConfigError, match=r"target 'wi' matches no matrix.*wi_0"):
        add_lora(build("t5", kind="seq2seq"), rank=2, alpha=4, targets=["q", "wi"])
    with pytest.raises(ConfigError, match=r"from_layer 3 of model is beyond its last layer, 2"):
        add_lora(build("llama", kind="causal"), rank=2, alpha=4, from_layer=3)


def test_adapters_start_as_nothing_and_stand_from_the_layer_asked_for(build, tokens):
    model = build("llama", kind="causal")
    before = model(tokens).logits
    names = add_lora(model, rank=4, alpha=8, targets=["q_proj", "down_proj"], from_layer=1, seed=3)
    assert names == [f"model.layers.{i}.{n}" for i in (1, 2) for n in ("self_attn.q_proj", "mlp.down_proj")]
    assert torch.equal(model(tokens).logits, before)
    has = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    assert has == set(names)
    other = build("llama", kind="causal")
    add_lora(other, rank=4, alpha=8, targets=["q_proj"], seed=3)
    first, second = model.state_dict(), other.state_dict()
    shared = "model.layers.2.self_attn.q_proj.lora_A.default.weight"
    assert torch.equal(first[shared], second[shared])  # a stream of its own name, whatever else has adapters


def test_merged_equals_adapted_and_equals_the_product_written_out(build, tokens):
    model = build("llama", kind="causal")
    base = copy.deepcopy(model.state_dict())
    add_lora(model, rank=4, alpha=12, targets=["attention"])
    train_a_little(model, tokens)
    state = dict(model.named_parameters())
    q = "model.layers.0.self_attn.q_proj"
    a, b = (state[f"{q}.lora_{x}.default.weight"].detach() for x in "AB")
    expected = model(tokens).logits
    changed = merge_adapters(model)
    torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-4, atol=1e-5)
    assert model.state_dict().keys() == base.keys()
    torch.testing.assert_close(model.state_dict()[f"{q}.weight"], base[f"{q}.weight"] + 3.0 * b @ a)
    assert f"{q}.weight" in changed and len(changed) == 12


@pytest.mark.parametrize(("name", "kind"), [("llama", "causal"), ("t5", "seq2seq")])
def test_peft_itself_loads_what_was_saved(build, tokens, tmp_path, name, kind):
    from peft import AutoPeftModel, PeftModel  # noqa: F401 - the class a user would call

    extra = {"decoder_input_ids": tokens} if kind == "seq2seq" else {}
    model = build(name, kind=kind)
    add_lora(model, rank=4, alpha=8, targets=["attention"])
    train_a_little(model, tokens)
    save_adapters(model, tmp_path, base="owner/base")
    theirs = PeftModel.from_pretrained(build(name, kind=kind), str(tmp_path)).eval()
    torch.testing.assert_close(theirs(tokens, **extra).logits, model(tokens, **extra).logits)
    assert theirs.peft_config["default"].base_model_name_or_path == "owner/base"
    ours = build(name, kind=kind)
    load_adapters(ours, tmp_path)
    torch.testing.assert_close(ours.eval()(tokens, **extra).logits, model(tokens, **extra).logits, rtol=0, atol=0)


def test_what_peft_saved_loads_here(build, tokens, tmp_path):
    from peft import LoraConfig, get_peft_model

    theirs = get_peft_model(build("llama", kind="causal"), LoraConfig(r=2, target_modules=["v_proj"], lora_alpha=4))
    train_a_little(theirs, tokens)
    theirs.save_pretrained(tmp_path)
    ours = build("llama", kind="causal")
    load_adapters(ours, tmp_path)
    torch.testing.assert_close(ours.eval()(tokens).logits, theirs(tokens).logits)
    other = build("llama", kind="causal")
    add_lora(other, rank=2, alpha=4, targets=["q_proj"])
    with pytest.raises(DataError, match="do not fit"):
        load_adapters(other, tmp_path)


def test_new_tokens_train_beside_the_adapters(build, tokens, tmp_path):
    from peft import PeftModel

    model = build("t5", kind="seq2seq")
    model.resize_token_embeddings(101)
    base = copy.deepcopy(model)
    add_lora(model, rank=2, alpha=4, targets=["q"], tokens=[99, 100])
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("trainable_tokens_delta" in name for name in trains)
    train_a_little(model, tokens)
    ids = torch.tensor([[5, 99, 100, 7]])
    expected = model(ids, decoder_input_ids=ids).logits
    assert not torch.allclose(expected, base(ids, decoder_input_ids=ids).logits, atol=1e-3)
    save_adapters(model, tmp_path)
    theirs = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path)).eval()
    torch.testing.assert_close(theirs(ids, decoder_input_ids=ids).logits, expected)
    merge_adapters(model)
    torch.testing.assert_close(model(ids, decoder_input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="token 101 is beyond"):
        add_lora(base, rank=2, alpha=4, tokens=[101])


def test_four_bit_matrices_compute_what_they_dequantise_to_and_merge_into_full_ones(build, tokens):
    model = build("llama", kind="causal")
    full = copy.deepcopy(model)
    add_lora(model, rank=2, alpha=4, quantized=True)
    train_a_little(model, tokens)
    layers = {name: module for name, module in model.named_modules() if is_quantized(module)}
    assert len(layers) == 3 * 7 and not any(name.startswith("lm_head") for name in layers)
    assert model.lm_head.weight.dtype == torch.float32
    plain = copy.deepcopy(full)
    with torch.no_grad():
        for name, layer in layers.items():
            weight = plain.get_submodule(name.removesuffix(".base_layer")).weight
            weight.copy_(
                dequantized(layer) + model.get_submodule(name.removesuffix(".base_layer")).get_delta_weight("default")
            )
    expected = model(tokens).logits
    torch.testing.assert_close(plain(tokens).logits, expected, rtol=1e-3, atol=1e-4)
    merge_adapters(model)
    assert model.state_dict().keys() == full.state_dict().keys()
    torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_four_bits_leave_alone_what_an_architecture_keeps_wide(build, name):
    """T5 casts what goes into `wo` to the type of its matrix: in 4 bits that would be bytes."""
    model = build(name, kind="seq2seq")
    plain = copy.deepcopy(model)
    add_lora(model, rank=2, alpha=4, quantized=True)
    train_a_little(model, None)
    held = {path.removesuffix(".base_layer") for path, module in model.named_modules() if is_quantized(module)}
    assert held and not any(path.endswith(".wo") for path in held)
    with torch.no_grad():
        for path, module in model.named_modules():
            if hasattr(module, "get_delta_weight"):
                base = module.base_layer
                weight = dequantized(base) if is_quantized(base) else base.weight
                plain.get_submodule(path).weight.copy_(weight + module.get_delta_weight("default"))
    ids = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    expected = plain(input_ids=ids, decoder_input_ids=ids).logits
    torch.testing.assert_close(model(input_ids=ids, decoder_input_ids=ids).logits, expected, rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = model(input_ids=ids, decoder_input_ids=ids).logits.float()
    assert float(((narrow - expected).norm() / expected.norm()).detach()) < 0.05


def test_the_error_of_four_bits_is_that_of_nf4():
    from torch import nn

    from ablab.models.quantization import quantize

    model = nn.Module()
    model.layers = nn.ModuleList([nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256))])
    weight = model.layers[0][0].weight.detach().normal_(std=0.02).clone()
    quantize(model)
    error = (weight - dequantized(model.layers[0][0])).norm() / weight.norm()
    assert 0.08 < error < 0.10  # of normal numbers in blocks of 64
    with pytest.raises(ConfigError, match="no linear matrices in layers"):
        quantize(nn.Linear(4, 4))
