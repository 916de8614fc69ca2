"""New tokens beside adapters: their rows train, all others stay, and what is merged computes the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from ablab.contract.models import ModelReference
from ablab.contract.training import Trainability
from ablab.models.hub import load_model
from ablab.models.parts import apply_trainability, remove_adapters
from ablab.models.vocabulary import grow_vocabulary

SHAPES: dict[str, dict[str, Any]] = {
    "mt5": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
    "bart": {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "scale_embedding": True,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 32,
    },
    "llama": {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
NEW = ((60, (5, 6)), (61, (7,)))


def build(name: str) -> Any:
    config = {"model_type": name, "vocab_size": 60, **SHAPES[name]}
    kind = "causal" if name == "llama" else "seq2seq"
    model: Any = load_model(ModelReference(config=config), kind=kind)
    grow_vocabulary(model, 62, pieces=NEW)
    model.ablab_new_tokens = (60, 61)
    return model


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    model.eval()
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    return model(input_ids=ids, **more).logits


def train(model: Any, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05, weight_decay=0.1)
    ids = torch.tensor([[5, 60, 61, 7, 9]])
    for _ in range(steps):
        more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        out = model(input_ids=ids, **more).logits
        torch.nn.functional.cross_entropy(out[0, :-1], ids[0, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_new_row_begins_as_the_mean_of_its_pieces_and_grows_nothing_else(name: str) -> None:
    config = {"model_type": name, "vocab_size": 60, **SHAPES[name]}
    before: Any = load_model(ModelReference(config=config), kind="causal" if name == "llama" else "seq2seq")
    model = build(name)
    weight, old = model.get_input_embeddings().weight, before.get_input_embeddings().weight
    assert weight.shape[0] == 62 and torch.equal(weight[:60], old)
    torch.testing.assert_close(weight[60], old[[5, 6]].mean(0))
    torch.testing.assert_close(weight[61], old[7])


@pytest.mark.parametrize("name", list(SHAPES))
def test_rows_of_new_tokens_train_beside_adapters_and_all_others_stay(name: str) -> None:
    model = build(name)
    untouched = copy.deepcopy(model)
    ids = torch.tensor([[5, 60, 61, 7]])
    apply_trainability(model, {"all": Trainability(mode="lora", rank=2)})
    torch.testing.assert_close(logits(model, ids), logits(untouched, ids))
    trained = {n for n, p in model.named_parameters() if p.requires_grad and "lora" not in n}
    # An output head with a matrix of its own has new rows too.
    heads = {"new_rows.head"} if name == "llama" else set()
    assert trained == {"new_rows.embedding"} | heads
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(model)
    for n, p in model.named_parameters():
        assert torch.equal(p, before[n]) is not (p.requires_grad and "lora_A" not in n) or "lora_A" in n, n
    assert not torch.equal(model.new_rows.embedding, before["new_rows.embedding"])


@pytest.mark.parametrize("name", list(SHAPES))
def test_merging_writes_the_rows_back(name: str) -> None:
    model = build(name)
    plain = copy.deepcopy(model)
    parts = {"all": Trainability(mode="lora", rank=2)}
    apply_trainability(model, parts)
    train(model)
    ids = torch.tensor([[5, 60, 61, 7]])
    expected = logits(model, ids).detach()
    remove_adapters(model, parts)
    assert model.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(logits(model, ids), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(plain, ids), expected, atol=1e-3)


def test_where_the_whole_embedding_trains_no_rows_are_set_apart() -> None:
    model = build("mt5")
    apply_trainability(model, {"all": Trainability(mode="full")})
    assert not hasattr(model, "new_rows")
