"""The loss is transformers' own; batches may be cut anyhow; what cannot work is refused with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from ablab.contract.failure import ConfigError, DataError
from ablab.contract.order import Input
from ablab.contract.training import Trainability
from ablab.models.loss import IGNORE
from ablab.models.parts import apply_trainability
from ablab.tasks.summarization.config import TrainSummaries
from ablab.tasks.summarization.model import product_head
from ablab.tasks.summarization.pairs import Pairs
from ablab.tasks.summarization.sections import Data, Model, Pretraining
from ablab.tasks.summarization.sections import Input as Shown
from ablab.tasks.summarization.task import Summarization, truncation
from ablab.testing import check_task

Make = Callable[..., Summarization]
NAMES = ("bart", "mbart", "mt5", "t5", "t5-v1.1", "llama")


def first(code: Summarization, count: int = 5) -> Any:
    return code.data("train").batch(np.arange(count), seed=1, step=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_transformers(make: Make, name: str) -> None:
    code = make(name)
    model: Any = code.model(seed=3).eval()
    batch = first(code)
    mine = code.losses(model, batch)
    theirs = model(**batch)
    assert mine.weight == float((batch["labels"] != IGNORE).sum()) == code.data("train").weight(batch)
    torch.testing.assert_close(mine.total / mine.weight, theirs.loss)
    logits = theirs.logits if name != "llama" else theirs.logits[:, :-1]
    labels = batch["labels"] if name != "llama" else batch["labels"][:, 1:]
    known = labels != IGNORE
    assert int(mine.terms["right"]) == int((logits.argmax(-1)[known] == labels[known]).sum())


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("name", NAMES)
def test_training_has_the_gradients_of_transformers_without_its_logits(
    make: Make, name: str, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New rows beside adapters too: the tags are taken for new ones, as those of a checkpoint are."""
    monkeypatch.setattr("ablab.models.loss.CHUNK_ELEMENTS", 16 * 500)
    code = make(name)
    model: Any = code.model(seed=3).train()
    model.ablab_new_tokens = tuple(code.vocabulary.tokenizer.convert_tokens_to_ids(["#Person1#", "#Person2#"]))
    apply_trainability(model, {"all": Trainability(mode=mode, rank=2)}, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    batch = first(code)
    mine, theirs = code.losses(model, batch), model(**batch)
    assert product_head(model) is not None and "right" not in mine.terms
    torch.testing.assert_close(mine.total / mine.weight, theirs.loss)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert any("new_rows" in n for n in trained) == (mode == "lora")
    wanted = torch.autograd.grad(theirs.loss * mine.weight, trained.values(), allow_unused=True)
    found = torch.autograd.grad(mine.total, trained.values(), allow_unused=True)
    for (n, parameter), want, got in zip(trained.items(), wanted, found, strict=True):
        want, got = (torch.zeros_like(parameter) if each is None else each for each in (want, got))
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()) + 1e-6, msg=n)


def test_logits_that_are_more_than_a_product_are_left_to_the_model(make: Make) -> None:
    code = make("bart")
    model: Any = code.model(seed=3).train()
    model.final_logits_bias.normal_()
    batch = first(code)
    mine, theirs = code.losses(model, batch), model(**batch)
    assert product_head(model) is None
    torch.testing.assert_close(mine.total / mine.weight, theirs.loss)


@pytest.mark.parametrize("name", ["bart", "llama"])
def test_label_smoothing_spreads_a_share_over_the_vocabulary(make: Make, name: str) -> None:
    code = make(name, train={"label_smoothing": 0.2})
    model: Any = code.model(seed=3).train()
    batch = first(code)
    logits, labels = model(**batch).logits, batch["labels"]
    if name == "llama":
        logits, labels = logits[:, :-1], labels[:, 1:]
    logp = functional.log_softmax(logits[labels != IGNORE], -1)
    target = labels[labels != IGNORE].unsqueeze(-1)
    expected = -(0.8 * logp.gather(-1, target).squeeze(-1) + 0.2 * logp.mean(-1)).sum()
    torch.testing.assert_close(code.losses(model, batch).total, expected)
    assert "right" not in code.losses(model, batch).terms


@pytest.mark.parametrize("name", ["mt5", "llama"])
def test_any_cut_of_a_step_adds_up(make: Make, name: str) -> None:
    code = make(name, train={"batching": {"tokens": 150}})
    model = code.model(seed=3).eval()
    data = code.data("train")
    ids = data.order(1, 0)[:6]
    whole = code.losses(model, data.batch(ids, seed=1, step=0))
    parts = data.parts(ids, most=6)
    assert len(parts) > 1 and sorted(np.concatenate(parts).tolist()) == sorted(ids.tolist())
    cut = [code.losses(model, data.batch(part, seed=1, step=0)) for part in parts]
    torch.testing.assert_close(sum(each.total for each in cut), whole.total)
    assert sum(each.weight for each in cut) == whole.weight
    for part in parts:
        batch = data.batch(part, seed=1, step=0)
        padded = batch["input_ids"].numel() + (0 if name == "llama" else batch["labels"].numel())
        assert len(part) == 1 or padded <= 150


def test_steps_are_of_similar_length_only_where_asked(make: Make) -> None:
    shown = {"encoder_length": 200}
    grouped = make(shown=shown).data("train")
    mixed = make(shown=shown, train={"batching": {"group": False}}).data("train")

    def padding(data: Pairs) -> float:
        order = data.order(7, 0)
        batches = [data.batch(order[low : low + 6], seed=1, step=0) for low in range(0, len(order) - 6, 6)]
        return 1 - sum(float(b["attention_mask"].sum()) for b in batches) / sum(b["input_ids"].numel() for b in batches)

    assert padding(grouped) < padding(mixed)
    assert sorted(mixed.order(7, 0).tolist()) == sorted(grouped.order(7, 0).tolist())


def test_a_split_that_is_measured_is_whole(make: Make) -> None:
    data = make().data("val")
    labels = [data.batch(np.array([i]), seed=1, step=0)["labels"] for i in range(data.samples)]
    rows = make().encoded("val")
    assert sorted(tuple(row.target.tolist()) for row in rows) == sorted(tuple(each[0].tolist()) for each in labels)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_task_keeps_its_promises(mode: str, data: Data) -> None:
    found = check_task(
        "summarization",
        sections={
            "model": {
                "checkpoint": {
                    "config": {"model_type": "bart", "width": 16, "layers": 1, "heads": 2, "feedforward": 16}
                },
                "dropout": 0.0,
            },
            "data": data.model_dump(),
            "input": {"encoder_length": 48, "decoder_length": 16},
        },
        stages={"pretrain": None},
        train={"parts": {"all": {"mode": mode}}, "batching": {"tokens": 128}},
        learning_rate=2e-2,
        overfit_steps=80,
    )
    assert found.metrics["val/perplexity"] == pytest.approx(np.exp(found.metrics["val/loss"]), rel=1e-6)
    assert 0 <= found.metrics["val/accuracy"] <= 1


@pytest.mark.parametrize("name", ["bart", "mt5"])
def test_qlora_trains_on_a_processor(make: Make, name: str) -> None:
    code = make(name)
    model = code.model(seed=1)
    apply_trainability(model, {"all": Trainability(mode="qlora", rank=2)})
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(3):
        found = code.losses(model, first(code))
        losses.append(float(found.total.detach()))
        found.total.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all("lora" in n for n in moved)


def test_gradient_checkpointing_gives_the_same_gradients_through_adapters(make: Make) -> None:
    grads = []
    for recompute in (False, True):
        code = make("mt5")
        model: Any = code.model(seed=1)
        apply_trainability(model, {"all": Trainability(mode="lora", rank=2)}, seed=1)
        if recompute:
            model.gradient_checkpointing_enable()
        model.train()
        code.losses(model, first(code)).total.backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys() and any("lora_B" in name for name in grads[0])
    for name, grad in grads[0].items():
        assert float((grads[1][name] - grad).norm()) <= 1e-4 * float(grad.norm()), name


@pytest.mark.parametrize("name", ["mt5", "t5"])
def test_fp16_is_refused_where_it_overflows(make: Make, name: str) -> None:
    code = make(name)
    model = code.model(seed=1)
    with torch.autocast("cpu", dtype=torch.float16), pytest.raises(ConfigError, match="precision: bf16 or fp32"):
        code.losses(model, first(code))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(code.losses(model, first(code)).total)


def test_lengths_beyond_the_positions_are_refused_before_the_first_step(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"input.encoder_length 300 exceeds the 256 positions"):
        make("bart", shown={"encoder_length": 300}).model(seed=1)
    make("mt5", shown={"encoder_length": 300}).model(seed=1)


@pytest.mark.parametrize("accelerator", ["unsloth", "Unsloth", "xformers"])
def test_an_accelerator_that_cannot_apply_is_refused_with_what_to_do(make: Make, accelerator: str) -> None:
    with pytest.raises(ConfigError, match=r"model.accelerator: .*set accelerator to none"):
        make("bart", accelerator=accelerator).model(seed=1)


def test_a_folder_is_loaded_with_new_tags_that_train(make: Make, prepared: Input, tmp_path: Path) -> None:
    """A checkpoint whose tokenizer knows no tags, as those of the hub."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from ablab.tasks.summarization.tokens import open_trained, train_tokenizer

    train_tokenizer(["hello world, 안녕하세요 여러분"] * 3, tmp_path / "t", name="bpe", vocabulary=80, tags=())
    tokenizer = open_trained(tmp_path / "t")
    source: Any = make("mt5").model(seed=5)
    source.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    source.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    assert AutoTokenizer.from_pretrained(tmp_path / "m").get_vocab().get("#Person1#") is None
    folder = _without_tokenizer(prepared, tmp_path)
    code = Summarization(
        {
            "model": Model(checkpoint={"name": str(tmp_path / "m")}),
            "input": Shown(encoder_length=64, decoder_length=24),
        },
        inputs=[folder],
        parameters=TrainSummaries(steps=1),
    )
    model: Any = code.model(seed=1)
    old = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "m").get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight[: len(old)], old)
    apply_trainability(model, {"all": Trainability(mode="lora", rank=2)})
    facts = code.facts(model, first(code))
    assert facts["tokens.new"] == facts["tokens.new_trained"] == 15
    assert model.new_rows.embedding.shape == (15, 16)
    assert 0 < facts["truncated.source"] <= 1 and facts["architecture"] == "mt5"


def _without_tokenizer(prepared: Input, tmp_path: Path) -> Input:
    import shutil

    folder = tmp_path / "prepare"
    shutil.copytree(prepared.path, folder)
    shutil.rmtree(folder / "artifacts" / "dialogues" / "tokenizer")
    return prepared.model_copy(update={"path": str(folder)})


def test_a_pretraining_sees_no_summary_of_the_train_split(prepared: Input, make: Make) -> None:
    fine = make()
    section = fine._section("model", Model)
    code = Summarization(
        {"model": section, "pretraining": Pretraining(encoder_length=64, decoder_length=200)},
        inputs=[prepared],
        parameters=TrainSummaries(steps=1),
    )
    rows = fine.prepared.rows("train")
    targets = {code.encoder.decode(row.target) for row in code.encoded("train")}
    summaries = {text for row in rows for text in row.summaries}
    assert not targets & summaries
    others = {text for row in fine.prepared.rows("pretraining") for text in row.summaries}
    assert others and len(targets & others) > 0.8 * len(others)
    masked = [code.encoder.tokenizer.mask_token_id in row.source for row in code.encoded("train")]
    assert sum(masked) > len(rows) / 2
    # The validation split is summarised as in fine-tuning.
    assert len(code.encoded("val")) == len(fine.encoded("val"))


def test_truncation_counts_texts_and_tokens(make: Make) -> None:
    code = make(shown={"encoder_length": 32})
    rows = code.encoded("train")
    found = truncation(rows, code.encoder.lengths)
    whole = [row.whole_source for row in rows]
    assert found["truncated.source"] == pytest.approx(np.mean([n > 32 for n in whole]))
    assert found["truncated.source_tokens"] == pytest.approx(sum(max(n - 32, 0) for n in whole) / sum(whole))
    assert all(len(row.source) == min(row.whole_source, 32) for row in rows)


def test_rows_without_summary_cannot_train(make: Make) -> None:
    code = make()
    from dataclasses import replace

    rows = code.encoded("train")
    with pytest.raises(DataError, match="1 rows of train have no summary, the first is row 0"):
        Pairs([replace(rows[0], target=np.empty(0, dtype=np.int64)), rows[1]], causal=False, padding=0, name="train")
