"""BERTScore against its formula written out with loops, one pair at a time."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Any

import pytest
import torch

from ablab.contract.failure import ConfigError
from ablab.metrics.bertscore import bert_score

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "회의", "내일", "합니다", "call", "me", "later", "#Person1#"]
HYPOTHESES = ["회의 내일 합니다", "call me", "#Person1# call later me me", "", "회의"]
REFERENCES = ["내일 회의 합니다", "later call me", "#Person1# 내일", "call", "회의"]


@cache
def encoder(kind: str) -> tuple[Any, Any]:
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=made, **special)
    torch.manual_seed(0)
    if kind == "t5":
        t5 = t.T5Config(vocab_size=11, d_model=16, d_kv=4, d_ff=32, num_layers=3, num_heads=4)
        return t.T5ForConditionalGeneration(t5).eval(), tokenizer
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32}
    return t.BertModel(t.BertConfig(vocab_size=11, initializer_range=0.5, **shape)).eval(), tokenizer


def formula(hypothesis: str, reference: str, *, model: Any, tokenizer: Any, layer: int) -> list[float]:
    """The definition: greedy matching of cosines; [CLS] and [SEP] may be matched but do not count."""

    def vectors(text: str) -> list[torch.Tensor]:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            return list(model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0])

    made, wanted = vectors(hypothesis), vectors(reference)
    cosine = {
        (i, j): float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
        for (i, a), (j, b) in itertools.product(enumerate(made), enumerate(wanted))
    }
    own_made, own_wanted = range(1, len(made) - 1), range(1, len(wanted) - 1)
    if not own_made or not own_wanted:
        return [0.0, 0.0, 0.0]
    precision = sum(max(cosine[i, j] for j in range(len(wanted))) for i in own_made) / len(own_made)
    recall = sum(max(cosine[i, j] for i in range(len(made))) for j in own_wanted) / len(own_wanted)
    return [precision, recall, 2 * precision * recall / (precision + recall)]


@pytest.mark.parametrize(("layer", "place"), [(None, -1), (2, 2), (0, 0)])
def test_scores_equal_the_formula_whatever_the_batch(layer: int | None, place: int) -> None:
    model, tokenizer = encoder("bert")
    for batch in (1, 3, 32):
        found = bert_score(HYPOTHESES, REFERENCES, model=model, tokenizer=tokenizer, layer=layer, batch=batch)
        for scores, hypothesis, reference in zip(found, HYPOTHESES, REFERENCES, strict=True):
            expected = formula(hypothesis, reference, model=model, tokenizer=tokenizer, layer=place)
            assert list(scores.values()) == pytest.approx(expected, abs=1e-5)
    assert found[-1]["f1"] == pytest.approx(1.0, abs=1e-5)
    assert found[3] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_an_encoder_decoder_gives_its_encoder() -> None:
    model, tokenizer = encoder("t5")
    found = bert_score(HYPOTHESES, REFERENCES, model=model, tokenizer=tokenizer)
    expected = formula(HYPOTHESES[0], REFERENCES[0], model=model.get_encoder(), tokenizer=tokenizer, layer=-1)
    assert list(found[0].values()) == pytest.approx(expected, abs=1e-5)


def test_mistakes_are_named() -> None:
    model, tokenizer = encoder("bert")
    with pytest.raises(ConfigError, match="layer 9 of an encoder with hidden states 0 to 3"):
        bert_score(["call"], ["me"], model=model, tokenizer=tokenizer, layer=9)
    with pytest.raises(ConfigError, match="1 hypotheses for 2 references"):
        bert_score(["call"], ["me", "later"], model=model, tokenizer=tokenizer)
