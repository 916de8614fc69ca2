"""Audits of language-modelling studies, and what they derive without running, against torch and the log's figures."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from ablab.tasks.language_modeling import audits
from ablab.tasks.language_modeling.sections import Model

ARM = """
experiments:
  A: {model: {width: 512, layers: 6, heads: 8, context: 512, attention: %s}}
"""


@pytest.mark.parametrize(
    ("attention", "measured"),
    # The log measured 0.21 for N(0, 0.02), 0.99 for orthogonal, and 1.01 for N(0, 1/width).
    [
        ("{query_key: frozen-normal, scale: 0.02}", 0.21),
        ("{query_key: frozen-orthogonal}", 0.99),
        ("{query_key: frozen-normal}", 1.01),
        ("{query_key: trained}", 0.21),
    ],
)
def test_derived_logit_scales_are_those_of_the_log(bench: Callable, attention: str, measured: float) -> None:
    study = bench(ARM % attention).study
    assert audits.logit_scale(study, study.experiments["A"]) == pytest.approx(measured, rel=0.04)


@pytest.mark.parametrize(
    "kind",
    [
        "trained",
        "trained-orthogonal",
        "frozen-orthogonal",
        "frozen-global-orthogonal",
        "frozen-normal",
        "identity-query",
    ],
)
def test_derived_logit_scales_are_those_of_drawn_matrices(bench: Callable, kind: str) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    width, heads = 128, 4

    def orthogonal(rows: int) -> np.ndarray:
        return np.linalg.qr(rng.normal(size=(width, rows)))[0].T

    def drawn(sigma: float) -> np.ndarray:
        return rng.normal(scale=sigma, size=(width, width))

    def matrix(role: str) -> np.ndarray:
        if kind == "identity-query":
            return np.eye(width) if role == "query" else drawn(0.02)
        if kind == "frozen-global-orthogonal":
            return orthogonal(width)
        if kind.endswith("orthogonal"):
            return np.concatenate([orthogonal(width // heads) for _ in range(heads)])
        return drawn(1 / math.sqrt(width) if kind == "frozen-normal" else 0.02)

    inputs = rng.normal(size=(600, width))
    logits = []
    query, key = matrix("query") @ inputs[:300].T, matrix("key") @ inputs[300:].T
    for head in range(heads):
        rows = slice(head * width // heads, (head + 1) * width // heads)
        logits.append(query[rows].T @ key[rows] / math.sqrt(width // heads))
    study = bench(f"experiments:\n  A: {{model: {{width: 128, heads: 4, attention: {{query_key: {kind}}}}}}}\n").study
    derived = audits.logit_scale(study, study.experiments["A"])
    assert derived == pytest.approx(float(np.std(logits)), rel=0.05)


def test_parameter_counts_are_those_of_the_log() -> None:
    assert audits.parameter_count(Model(width=512, layers=6, heads=8, context=512), 50_257) == 44_896_768


def test_tokens_seen_and_held(bench: Callable) -> None:
    text = """
experiments:
  A: {model: {context: 512}, data: {source: openwebtext, max_tokens: 99100000, tokenizer: {name: gpt2}},
      pipeline: {train: {steps: 150000, batch: 8}}}
  B: {data: {source: openwebtext, tokenizer: {name: gpt2}}}
  C: {}
"""
    study = bench(text).study
    arms = study.experiments
    assert audits.tokens_seen(study, arms["A"]) == 614_400_000
    assert audits.tokens_held(study, arms["A"]) == 99_100_000
    assert audits.tokens_held(study, arms["B"]) == audits.GPT2_TOKENS["openwebtext"]
    assert audits.tokens_held(study, arms["C"]) is None


PAIR = """
experiments:
  A: {}
  B: {%s}
comparisons:
  - {baseline: A, variants: [B], factor: %s, also: [data, pipeline], metric: %s, criterion: value <= 9}
"""


def test_perplexities_of_different_tokenizers(bench: Callable) -> None:
    bpe = "data: {tokenizer: {name: bpe, vocabulary: 500}}"
    perplexity = bench(PAIR % (bpe, "data.tokenizer", "val/perplexity")).findings("tokenizers-differ")
    assert [each.severity for each in perplexity] == ["error"]
    bits = bench(PAIR % (bpe, "data.tokenizer", "val/bits_per_byte")).findings("tokenizers-differ")
    assert [each.severity for each in bits] == ["note"]
    assert bench(PAIR % ("model: {layers: 2}", "model.layers", "val/perplexity")).findings("tokenizers-differ") == []


def test_one_bpe_trained_on_two_corpora_is_two_tokenizers(bench: Callable) -> None:
    text = PAIR % ("data: {source: wordnet}", "data.source", "val/perplexity")
    text = text.replace("A: {}", "A: {data: {tokenizer: {name: bpe, vocabulary: 500}}}").replace(
        "B: {", "B: {like: A, "
    )
    assert len(bench(text).findings("tokenizers-differ")) == 1


def test_windows_that_differ_or_do_not_fit(bench: Callable) -> None:
    def lab(window: int) -> object:
        return bench(PAIR % (f"pipeline: {{evaluate: {{window: {window}}}}}", "model", "test/perplexity"))

    assert len(lab(16).findings("evaluation-context-differs")) == 1
    assert lab(32).findings("evaluation-context-differs") == lab(32).findings("window-exceeds-context") == []
    assert [each.severity for each in lab(64).findings("window-exceeds-context")] == ["error"]


def test_validation_on_a_part_of_the_split(bench: Callable) -> None:
    part = "pipeline: {train: {validation: {batches: 3}}}"
    found = bench(PAIR % (part, "model", "val/perplexity")).findings("validation-partial")
    assert [each.severity for each in found] == ["warning"]
    assert bench(PAIR % (part, "model", "test/perplexity")).findings("validation-partial") == []


def test_a_verdict_on_the_training_data(bench: Callable, sound: str) -> None:
    assert bench(sound).findings("metric-on-training-data") == []
    assert len(bench(sound.replace("val/perplexity", "train/loss")).findings("metric-on-training-data")) == 1


def test_few_tokens_a_parameter(bench: Callable, sound: str) -> None:
    found = bench(sound).findings("tokens-per-parameter")
    assert found[0].evidence["A"] == pytest.approx(
        12_800 / audits.parameter_count(Model(width=32, layers=1, heads=2, context=32), 257)
    )
    assert bench(sound.replace("steps: 100", "steps: 10000")).findings("tokens-per-parameter") == []


def test_headwise_claims_need_the_global_arm(bench: Callable) -> None:
    text = """
experiments:
  A: {}
  B: {model: {attention: {query_key: frozen-orthogonal}}}
  C: {model: {attention: {query_key: frozen-global-orthogonal}}}
comparisons:
  - {baseline: A, variants: %s, factor: model.attention, metric: val/perplexity, criterion: ratio <= 1.05}
"""
    assert len(bench(text % "[B]").findings("headwise-without-global")) == 1
    assert bench(text % "[B, C]").findings("headwise-without-global") == []


def test_word_level_references(bench: Callable, sound: str) -> None:
    assert bench(sound + "references:\n  A: {test/perplexity: 30}\n").findings("word-level-reference") == []
    lab = bench(sound + "references:\n  A: {test/word_perplexity: 37.5}\n")
    assert len(lab.findings("word-level-reference")) == 1


@pytest.mark.parametrize(
    ("model", "mebibytes"),
    # The log's own arithmetic: 513.8 MiB, 490 with frozen moments left out, 477.8 where they are stored as a seed.
    [
        ("", 513.8),
        ("attention: {query_key: frozen-orthogonal}", 489.8),
        ("attention: {query_key: frozen-orthogonal}, store_frozen: seed", 477.8),
    ],
)
def test_checkpoint_bytes_are_those_of_the_log(bench: Callable, model: str, mebibytes: float) -> None:
    text = f"experiments:\n  A: {{data: {{source: tinystories}}, model: {{{model}}}}}\n"
    lab = bench(
        "name: x\nquestion: x\ntask: language-modeling\nseeds: [1]\ndefaults: {pipeline: {train: {steps: 9}}}\n" + text
    )
    assert audits.checkpoint_bytes(lab.study, lab.study.experiments["A"]) / 2**20 == pytest.approx(mebibytes, abs=0.06)
