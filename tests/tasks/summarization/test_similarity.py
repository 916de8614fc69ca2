"""BERTScore as an option of the evaluation: an encoder from a folder, several references, the metric's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ablab.contract.task import DataReference
from ablab.data.dialogues import Dialogue
from ablab.metrics.bertscore import bert_score
from ablab.tasks.summarization.config import SPEC, BertScore, Evaluate
from ablab.tasks.summarization.sections import Model
from ablab.tasks.summarization.similarity import similarity

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "call", "me", "later", "today", "please"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with its tokenizer, as a folder."""
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("encoder")
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    t.PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    t.BertModel(t.BertConfig(vocab_size=len(WORDS), initializer_range=0.5, **shape)).save_pretrained(folder)
    return folder


def test_references_are_taken_by_mean_or_max(encoder: Path) -> None:
    import transformers as t

    rows = [
        Dialogue(id="a", dialogue="x", summaries=("call me", "later today please")),
        Dialogue(id="b", dialogue="y", summaries=("please",)),
    ]
    outputs = ["call me today", "please"]
    settings = BertScore(encoder=str(encoder), layer=1)
    direct = {
        "model": t.AutoModel.from_pretrained(encoder).eval(),
        "tokenizer": t.AutoTokenizer.from_pretrained(encoder),
        "layer": 1,
    }
    first = [100 * s["f1"] for s in bert_score([outputs[0]] * 2, list(rows[0].summaries), **direct)]
    for aggregate, expected in (("mean", sum(first) / 2), ("max", max(first))):
        found = similarity(rows, outputs, settings, aggregate=aggregate, device=torch.device("cpu"))  # type: ignore[arg-type]
        assert found == pytest.approx([expected, 100.0], abs=1e-3)


def test_an_evaluation_yields_it_on_request(make: Callable[..., Any], context: Any, encoder: Path) -> None:
    code = make()
    model = code.model(seed=0).eval()
    rouge = {"tokenizer": "words", "samples": 1}
    plain = code.evaluate(model, Evaluate(decoding={"max_new_tokens": 3}, rouge=rouge), context)
    assert "test/bertscore" not in plain.metrics
    asked = Evaluate(decoding={"max_new_tokens": 3}, rouge=rouge, bertscore={"encoder": str(encoder)})
    scored = code.evaluate(model, asked, context)
    assert 0 <= scored.metrics["test/bertscore"] <= 100
    assert {name: scored.metrics[name] for name in plain.metrics} == plain.metrics


def test_the_encoder_enters_what_the_stage_reads(encoder: Path) -> None:
    spec = SPEC.stages["evaluate"]
    model = Model(checkpoint={"config": {"model_type": "bart"}})
    given = Evaluate(bertscore={"encoder": "klue/roberta-base"})
    assert spec.references is not None
    assert spec.references({"model": model}, given) == [
        DataReference(
            kind="hub", name="klue/roberta-base", path="pipeline.evaluate.bertscore.encoder", repository="model"
        )
    ]
    assert spec.references({"model": model}, Evaluate()) == []
