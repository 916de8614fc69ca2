from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ablab.contract.order import Input
from ablab.models.gpt import GPT, Shape
from ablab.tasks.language_modeling.config import SPEC
from ablab.tasks.language_modeling.sections import Data, Model
from ablab.tasks.language_modeling.task import LanguageModeling, shape_of


def test_the_spec_names_this_code() -> None:
    assert SPEC.code == f"{LanguageModeling.__module__}:{LanguageModeling.__name__}"


def test_the_section_becomes_the_shape() -> None:
    section = Model(
        width=24, layers=3, heads=2, feedforward=40, context=7, dropout=0.3, bias=False, tied_head=False,
        initial_std=0.05, attention={"query_key": "frozen-normal", "scale": 0.1, "unfrozen_layers": 1, "bias": True},
    )  # fmt: skip
    assert shape_of(section, vocabulary=11) == Shape(
        vocabulary=11, width=24, layers=3, heads=2, hidden=40, context=7, dropout=0.3, bias=False, tied_head=False,
        initial_std=0.05, attention_bias=True, query_key="frozen-normal", query_key_scale=0.1, unfrozen_layers=1,
    )  # fmt: skip
    assert shape_of(Model(width=24, heads=2), vocabulary=11).hidden == 96


def test_the_vocabulary_is_the_tokenizers(task: LanguageModeling) -> None:
    model = task.model(seed=3)
    assert model.tokens.weight.size(0) == task.corpus.vocabulary
    assert isinstance(model, GPT)
    assert torch.equal(model.tokens.weight, task.model(seed=3).tokens.weight)


def test_micro_batches_add_up_to_the_batch(task: LanguageModeling) -> None:
    model, train = task.model(seed=0), task.data("train")
    ids = np.arange(6)
    whole = task.losses(model, train.batch(ids, seed=0, step=0))
    parts = [task.losses(model, train.batch(ids[i : i + 2], seed=0, step=0)) for i in (0, 2, 4)]
    assert whole.weight == sum(part.weight for part in parts)
    torch.testing.assert_close(whole.total, torch.stack([part.total for part in parts]).sum())
    assert not whole.terms


def test_bits_per_byte_of_a_whole_split_has_the_texts_bytes(task: LanguageModeling) -> None:
    data, model = task.data("val"), task.model(seed=0).eval()
    with torch.no_grad():
        losses = task.losses(model, data.batch(data.order(0, 0), seed=0, step=0))
    assert int(losses.terms["bytes"]) == task.corpus.counts("val").bytes
    values = task.metrics("val", {"loss": 10.0, "bytes": 5.0}, 4.0)
    assert set(values) == {"val/loss", "val/perplexity", "val/bits_per_byte"}, "a part of a split has no word count"


@pytest.mark.parametrize(("scale", "expected"), [(None, 1.0), (0.5, 4.0)])
def test_facts_tell_the_initial_scale_and_what_is_supervised(
    scale: float | None, expected: float, model: Model, data: Data, prepared: Input
) -> None:
    """Logits of N(0, s) queries and keys on normalised inputs have a standard deviation of s² x width."""
    section = model.model_copy(
        update={"attention": model.attention.model_copy(update={"query_key": "frozen-normal", "scale": scale})}
    )
    task = LanguageModeling({"model": section, "data": data}, inputs=[prepared])
    batch = task.data("train").batch(np.arange(4), seed=0, step=0)
    built = task.model(seed=0)
    facts: dict[str, Any] = task.facts(built.train(), batch)
    assert facts["logits.scale"] == pytest.approx(expected, rel=0.4)
    assert len(facts["logits.scale_by_layer"]) == 2
    assert facts["supervised.share"] == 1.0
    assert facts["supervised.preview"] == task.corpus.tokenizer().decode(batch["targets"][0].tolist())
    assert built.training
