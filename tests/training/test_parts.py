"""Adapters, frozen parts and weights left out of checkpoints, through the whole loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ablab.contract.failure import ConfigError, DataError, StopRequested
from ablab.contract.models import ModelReference
from ablab.contract.order import Input
from ablab.contract.training import Train
from ablab.models.hub import load_model
from ablab.training.inherit import continue_from, take_part, training_parts
from ablab.training.loop import train
from ablab.training.retention import find
from ablab.training.task import Losses

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 40,
}  # fmt: skip
LORA = {"llm": {"mode": "lora", "rank": 4, "learning_rate": 0.02}, "extra": {}}


class Tokens:
    samples = 24

    def order(self, seed, epoch):
        return np.random.default_rng([seed, epoch]).permutation(self.samples)

    def batch(self, ids, *, seed, step):
        rows = [np.random.default_rng(int(i)).integers(0, 8, 7) for i in ids]
        return {"ids": torch.from_numpy(np.stack(rows))}

    def weight(self, batch):
        return float(batch["ids"][:, 1:].numel())


class Pair(torch.nn.Module):
    """A language model and a part of our own beside it."""

    def __init__(self, reference, seed):
        super().__init__()
        self.llm = load_model(reference, kind="causal", seed=seed)
        self.extra = torch.nn.Linear(40, 40, bias=False)
        torch.nn.init.eye_(self.extra.weight)

    def forward(self, ids):
        return self.extra(self.llm(ids).logits)


class Code:
    def __init__(self, reference, *, after=None):
        self.reference, self.after = reference, after

    def model(self, *, seed):
        model = Pair(self.reference, seed)
        return model if self.after is None else self.after(model)

    def data(self, split):
        return Tokens()

    def losses(self, model, batch):
        ids = batch["ids"]
        total = torch.nn.functional.cross_entropy(
            model(ids)[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum"
        )
        return Losses(total=total, weight=float(ids[:, 1:].numel()))

    def metrics(self, split, totals, weight):
        return {f"{split}/loss": totals["loss"] / weight}

    def facts(self, model, batch):
        return {}


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A model as if downloaded: saved in transformers' format."""
    folder = tmp_path_factory.mktemp("named")
    load_model(ModelReference(config=LLAMA), kind="causal", seed=9).save_pretrained(folder)
    return ModelReference(name=str(folder))


def settings(parts, **changes):
    return Train.model_validate({
        "steps": 8, "batch": 4, "log_every": 2, "precision": "fp32", "checkpoints": {"every": 4},
        "optimizer": {"learning_rate": 0.01}, "parts": parts, **changes,
    })  # fmt: skip


def tensors(context):
    with safe_open(find(context.checkpoints, "last") / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def test_adapters_on_a_frozen_named_model_resume_to_the_same_bits_and_store_only_what_trains(named, make_context):
    whole = make_context("whole")
    outcome = train(Code(named), settings(LORA), whole)
    cut = make_context("cut", stop_at=5)
    with pytest.raises(StopRequested):
        train(Code(named), settings(LORA), cut)
    again = make_context("cut")
    train(Code(named), settings(LORA), again)
    assert again.lines("start")[-1]["step"] == 4
    (mine, metadata), (theirs, _) = tensors(whole), tensors(again)
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert all(".lora_" in name or name == "extra.weight" for name in mine)
    assert named.name in metadata["ablab.referenced"]
    table = {row["part"]: row for row in outcome.facts["parameters.table"]}
    assert table["llm"]["trained"] == sum(t.numel() for name, t in mine.items() if ".lora_" in name)
    assert table["extra"]["frozen"] == 0 and table["llm"]["learning_rate"] == 0.02
    assert outcome.metrics["val/loss"] < 0.98 * whole.lines("step")[0]["loss"]


def test_a_checkpoint_without_the_frozen_weights_refuses_another_model(named, make_context, tmp_path):
    context = make_context("run")
    train(Code(named), settings(LORA, steps=4), context)
    other = tmp_path / "other"
    load_model(ModelReference(config=LLAMA), kind="causal", seed=10).save_pretrained(other)
    with pytest.raises(DataError, match=r"was left out as that of .*named.*; load the same model and revision"):
        train(Code(ModelReference(name=str(other))), settings(LORA, steps=8), context)


def test_a_random_frozen_part_is_stored_whole(make_context):
    context = make_context("run")
    train(Code(ModelReference(config=LLAMA)), settings({"llm": {"mode": "frozen"}}, steps=2), context)
    stored, metadata = tensors(context)
    assert "llm.model.layers.0.mlp.up_proj.weight" in stored and "ablab.referenced" not in metadata


@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_the_next_stage_goes_on_where_adapters_left_off(named, make_context, mode):
    parts = {"llm": {"mode": mode, "rank": 4, "learning_rate": 0.02}, "extra": {}}
    first = make_context("first")
    first.order = first.order.model_copy(update={"parameters": {"parts": parts}})
    (first.folder).mkdir(parents=True, exist_ok=True)
    (first.folder / "order.json").write_text(first.order.model_dump_json())
    done = train(Code(named), settings(parts, steps=4), first)
    given = Input(reference="pretrain", stage="pretrain", kind="train", key="k", path=str(first.folder))
    assert training_parts(first.folder)["llm"].mode == mode

    code = Code(named, after=lambda model: continue_from(model, given))
    model = code.model(seed=1).eval()
    total = weight = 0.0
    with torch.no_grad():
        data = Tokens()
        found = code.losses(model, data.batch(np.arange(24), seed=1, step=0))
        total, weight = float(found.total), found.weight
    assert total / weight == pytest.approx(done.metrics["val/loss"], rel=1e-3)

    # The merged weights are nobody's but ours: frozen now, they are stored, and they come back.
    second = make_context("second")
    outcome = train(code, settings({"llm": {"mode": "frozen"}, "extra": {}}, steps=2), second)
    stored, metadata = tensors(second)
    assert "llm.model.layers.0.mlp.up_proj.weight" in stored
    kept = metadata.get("ablab.referenced", "{}")
    assert "up_proj" not in kept
    again = train(code, settings({"llm": {"mode": "frozen"}, "extra": {}}, steps=2), make_context("second"))
    assert again.metrics == outcome.metrics


def test_one_part_is_taken_from_another_run(named, make_context):
    first = make_context("first")
    train(Code(named), settings({"llm": {"mode": "frozen"}, "extra": {}}, steps=4), first)
    given = Input(reference="A.pretrain", stage="pretrain", kind="train", key="k", path=str(first.folder))
    stored, _ = tensors(first)
    model = take_part(Pair(named, 1), given, "extra")
    assert torch.equal(model.extra.weight, stored["extra.weight"])
    with pytest.raises(ConfigError, match="no part 'connector'"):
        take_part(model, given, "connector")
    model.extra = torch.nn.Linear(3, 3, bias=False)
    with pytest.raises(DataError, match=r"extra.weight has shape \(40, 40\), the model expects \(3, 3\)"):
        take_part(model, given, "extra")


def test_four_bit_training_moves_the_adapters_only_and_resumes(named, make_context):
    parts = {"llm": {"mode": "qlora", "rank": 4}, "extra": {"mode": "frozen"}}
    context = make_context("run")
    outcome = train(Code(named), settings(parts, steps=2), context)
    stored, metadata = tensors(context)
    assert all(".lora_" in name for name in stored if name.startswith("llm."))
    assert any(bool(tensor.abs().sum() > 0) for name, tensor in stored.items() if "lora_B" in name)
    assert "quant_state" in metadata["ablab.referenced"]
    longer = train(Code(named), settings(parts, steps=4), context)
    assert longer.metrics["val/loss"] < outcome.metrics["val/loss"]
    assert context.lines("start")[-1]["step"] == 2


def test_each_part_has_its_own_rate(named, make_context):
    """With plain SGD a step is rate x gradient: ten times the rate moves a part ten times as far."""
    plain = {"optimizer": {"name": "sgd", "learning_rate": 1.0, "weight_decay": 0.0}, "clip": None, "steps": 1,
             "schedule": {"name": "constant"}}  # fmt: skip
    moved = []
    for name, rate in (("a", 1.0), ("b", 10.0)):
        context = make_context(name)
        train(Code(named), settings({"llm": {"mode": "frozen"}, "extra": {"learning_rate": rate}}, **plain), context)
        moved.append(tensors(context)[0]["extra.weight"] - torch.eye(40))
    torch.testing.assert_close(moved[1], 10 * moved[0], rtol=1e-3, atol=1e-6)
    assert moved[0].abs().max() > 0
