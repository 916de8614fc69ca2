from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ablab.contract.training import Train
from ablab.tasks.language_modeling.config import SPEC, Evaluate
from ablab.tasks.language_modeling.sections import Attention, Data, Model, Tokenizer


@pytest.mark.parametrize(
    ("block", "values", "says"),
    [
        (Attention, {"query_key": "trained", "scale": 0.02}, "belongs to frozen-normal"),
        (Attention, {"query_key": "trained", "unfrozen_layers": 1}, "needs frozen"),
        (Model, {"width": 10, "heads": 3}, "not divisible"),
        (Model, {"layers": 1, "attention": {"query_key": "frozen-normal", "unfrozen_layers": 2}}, "exceeds layers"),
        (Tokenizer, {"name": "bpe"}, "needs its vocabulary"),
        (Tokenizer, {"name": "gpt2", "vocabulary": 300}, "has its own"),
        (Data, {"source": "austin"}, "known: austen"),
        (Data, {"source": "files"}, "give `files`"),
        (Data, {"source": "austen", "test_files": ["x.txt"]}, "belong to `source: files`"),
        (Data, {"source": "austen", "splits": {"validation": 0.5, "test": 0.5}}, "nothing to train"),
        (Evaluate, {"window": 8, "stride": 9}, "exceeds window"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(block: Any, values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        block(**values)


@pytest.mark.parametrize(
    ("source", "hub"),
    [
        ("tinystories", ("roneneldan/TinyStories", None)),
        ("wikitext-103", ("Salesforce/wikitext", "wikitext-103-raw-v1")),
        ("some/set", ("some/set", None)),
        ("austen", None),
    ],
)
def test_sources_name_what_they_read(source: str, hub: tuple[str, str | None] | None) -> None:
    data = Data(source=source)
    assert data.hub() == hub
    references = SPEC.stages["prepare"].references
    assert references is not None
    (reference,) = references({"data": data}, None)
    assert (reference.kind, reference.name) == (("hub", hub[0]) if hub else ("bundled", source))


def test_files_are_references_in_their_order() -> None:
    data = Data(source="files", files=("b.txt", "a.jsonl"), test_files=("c.parquet",))
    references = SPEC.stages["prepare"].references
    assert references is not None
    assert [r.name for r in references({"data": data}, None)] == ["b.txt", "a.jsonl", "c.parquet"]


def test_a_stage_tells_its_length() -> None:
    train = SPEC.stages["train"]
    assert train.steps is not None and train.effective_batch is not None
    assert train.steps({}, Train(steps=7, batch=3)) == 7
    assert train.steps({}, Train(epochs=1)) is None
    assert train.effective_batch({}, Train(steps=7, batch=3)) == 3


def test_metrics_have_definitions_and_ratios_of_perplexity_are_on_the_log_scale() -> None:
    for name in ("val/loss", "test/perplexity", "test/bits_per_byte", "val/word_perplexity"):
        assert SPEC.metric(name).description
    assert SPEC.metric("test/perplexity").log_scale and SPEC.metric("test/word_perplexity").log_scale
    assert not SPEC.metric("val/loss").log_scale
