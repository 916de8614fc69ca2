"""InternVL checkpoints against a decoder written from InternLM2's definition, and transformers' own InternVL model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from ablab.contract.failure import DataError
from ablab.models.internvl import is_internvl, load_connector, load_decoder, load_tower, split_groups
from tests.models.tiny_internvl import internlm2_config, vision_config, write_internvl

HEADS, KV, D, WIDTH, HIDDEN, LAYERS, VOCAB = 4, 2, 8, 32, 48, 2, 50
DECODER = internlm2_config(
    vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=LAYERS,
    num_attention_heads=HEADS, num_key_value_heads=KV,
)  # fmt: skip
VISION = vision_config(
    hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, image_size=28, patch_size=7
)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) * 0.3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("internvl")
    return folder, write_internvl(folder, decoder=DECODER, vision=VISION, drawn=drawn)


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def rotated(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions of base 10^6, halves paired; x (heads, T, D)."""
    frequencies = 1e6 ** (-torch.arange(0, D, 2) / D)
    angles = torch.arange(x.size(1))[:, None] * frequencies
    a, b = x[..., : D // 2], x[..., D // 2 :]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def internlm2(state: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """Logits by the definition: wqkv rows as (kv head, [its queries, key, value], D)."""
    p = {name.removeprefix("language_model."): tensor for name, tensor in state.items()}
    h = p["model.tok_embeddings.weight"][ids]
    for n in range(LAYERS):
        at = f"model.layers.{n}"
        x = rms(h, p[f"{at}.attention_norm.weight"]) @ p[f"{at}.attention.wqkv.weight"].T
        q, k, v = [], [], []
        for g, group in enumerate(x.split((HEADS // KV + 2) * D, dim=-1)):
            rows = group.split(D, dim=-1)
            q += [rows[i] for i in range(HEADS // KV)]
            k += [rows[-2]] * (HEADS // KV)
            v += [rows[-1]] * (HEADS // KV)
            assert g < KV
        q, k, v = rotated(torch.stack(q)), rotated(torch.stack(k)), torch.stack(v)
        scores = q @ k.transpose(1, 2) / math.sqrt(D)
        scores = scores.masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), -torch.inf)
        mixed = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        h = h + mixed @ p[f"{at}.attention.wo.weight"].T
        x = rms(h, p[f"{at}.ffn_norm.weight"])
        gate = F.silu(x @ p[f"{at}.feed_forward.w1.weight"].T) * (x @ p[f"{at}.feed_forward.w3.weight"].T)
        h = h + gate @ p[f"{at}.feed_forward.w2.weight"].T
    return rms(h, p["model.norm.weight"]) @ p["output.weight"].T


def test_the_decoder_has_the_logits_of_its_definition(checkpoint):
    folder, state = checkpoint
    model = load_decoder(folder)
    assert type(model).__name__ == "LlamaForCausalLM" and not any(p.is_meta for p in model.parameters())
    ids = torch.randint(0, VOCAB, (11,))
    with torch.no_grad():
        torch.testing.assert_close(model(ids[None]).logits[0], internlm2(state, ids), rtol=1e-4, atol=1e-4)


def test_groups_split_where_they_were_joined():
    q, k, v = drawn(HEADS * D, 3), drawn(KV * D, 3), drawn(KV * D, 3)
    each = HEADS // KV
    rows = []
    for g in range(KV):
        rows += [q[g * each * D : (g + 1) * each * D], k[g * D : (g + 1) * D], v[g * D : (g + 1) * D]]
    for found, expected in zip(split_groups(torch.cat(rows), heads=HEADS, kv_heads=KV), (q, k, v), strict=True):
        assert torch.equal(found, expected)


def test_the_tower_has_the_features_of_its_definition(checkpoint):
    folder, state = checkpoint
    p = {name.removeprefix("vision_model."): tensor for name, tensor in state.items()}
    pixels = torch.randn(2, 3, 28, 28)
    x = F.conv2d(pixels, p["embeddings.patch_embedding.weight"], p["embeddings.patch_embedding.bias"], stride=7)
    h = torch.cat([p["embeddings.class_embedding"].expand(2, -1, -1), x.flatten(2).mT], 1)
    h = h + p["embeddings.position_embedding"]
    V = VISION["hidden_size"]
    for n in range(2):
        at = f"encoder.layers.{n}"
        x = F.layer_norm(h, (V,), p[f"{at}.norm1.weight"], p[f"{at}.norm1.bias"], 1e-6)
        qkv = (x @ p[f"{at}.attn.qkv.weight"].T + p[f"{at}.attn.qkv.bias"]).unflatten(-1, (3, 3, V // 3))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = h + p[f"{at}.ls1"] * (x @ p[f"{at}.attn.proj.weight"].T + p[f"{at}.attn.proj.bias"])
        x = F.layer_norm(h, (V,), p[f"{at}.norm2.weight"], p[f"{at}.norm2.bias"], 1e-6)
        x = F.gelu(x @ p[f"{at}.mlp.fc1.weight"].T + p[f"{at}.mlp.fc1.bias"])
        h = h + p[f"{at}.ls2"] * (x @ p[f"{at}.mlp.fc2.weight"].T + p[f"{at}.mlp.fc2.bias"])
    with torch.no_grad():
        found = load_tower(folder)(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(found, h, rtol=1e-4, atol=1e-4)


def test_the_connector_is_found_by_its_parts(checkpoint):
    folder, state = checkpoint
    found = load_connector(folder)
    assert set(found) == {f"{part}.{kind}" for part in ("norm", "linear_1", "linear_2") for kind in ("weight", "bias")}
    assert torch.equal(found["linear_2.weight"], state["mlp1.3.weight"])


def test_what_is_missing_or_left_over_is_named(checkpoint, tmp_path):
    folder, state = checkpoint
    assert is_internvl(folder) and not is_internvl(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    names = [name for name in state if name != "language_model.output.weight"]
    save_file({name: state[name] for name in names} | {"language_model.odd": drawn(2)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"missing: lm_head\.weight; not known: odd"):
        load_decoder(tmp_path)


def test_its_connector_goes_into_a_model_of_the_same_sizes(checkpoint):
    from ablab.contract.models import ModelReference
    from ablab.models.hub import load_connector_into
    from ablab.models.vision_language import build_vision_language

    folder, state = checkpoint
    name = ModelReference(name=str(folder))
    built = {"connector": "pixel_shuffle", "layer": -1, "image_token": 49, "seed": 0}
    model = build_vision_language(llm=name, tower=name, **built)
    load_connector_into(model, name)
    assert torch.equal(model.connector.linear_1.weight, state["mlp1.1.weight"])
    with pytest.raises(DataError, match="does not fit"):
        load_connector_into(build_vision_language(llm=name, tower=name, **built, connector_options={"by": 4}), name)


def test_one_name_stands_for_decoder_and_tower(checkpoint):
    from ablab.models.hub import load_model

    folder, state = checkpoint
    decoder, tower = load_model(str(folder), kind="causal"), load_model(str(folder), kind="vision")
    assert (type(decoder).__name__, type(tower).__name__) == ("LlamaForCausalLM", "InternVLVisionModel")
    assert torch.equal(decoder.lm_head.weight, state["language_model.output.weight"])


@pytest.mark.parametrize("prefix", [False, True])
def test_the_tokenizer_is_the_sentencepiece_model_without_the_code_beside_it(tmp_path: Path, prefix: bool) -> None:
    import sentencepiece

    from ablab.models.hub import load_tokenizer

    words = "Here is a picture of a house.\nWhat is in it? 그림에 무엇이 있나요?\n"
    (tmp_path / "words.txt").write_text(words * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "words.txt"), model_prefix=str(tmp_path / "tokenizer"), vocab_size=340, model_type="bpe",
        byte_fallback=True, add_dummy_prefix=prefix, normalization_rule_name="identity", minloglevel=2, unk_id=0,
        bos_id=1, eos_id=2, remove_extra_whitespaces=False, hard_vocab_limit=False,
    )  # fmt: skip
    oracle = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    mark = {"content": "<|im_end|>", "special": True, "normalized": False, "lstrip": False, "rstrip": False,
            "single_word": False}  # fmt: skip
    settings = {"tokenizer_class": "InternLM2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
                "added_tokens_decoder": {str(oracle.get_piece_size()): mark}}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "tokenization_internlm2.py").write_text("raise RuntimeError('code of the repository ran')\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl_chat"}))
    found = load_tokenizer(str(tmp_path), trust_remote_code=True)
    for text in ("What is it?", "무엇이 있나요?  두 칸", "12 ✓\nnew line", "x"):
        ids = found(text, add_special_tokens=False)["input_ids"]
        assert ids == oracle.encode(text) and found.decode(ids) == text
    assert found.convert_tokens_to_ids("<|im_end|>") == oracle.get_piece_size()
