from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ablab.contract.failure import ConfigError, NotFiniteError, StopRequested
from ablab.tasks.language_modeling.config import Evaluate
from ablab.tasks.language_modeling.task import LanguageModeling


def token_by_token(task: LanguageModeling, model: Any, split: str, *, window: int, stride: int) -> float:
    """Total nats by the definition: each target alone, with the inputs its window gives it."""
    stored = task.corpus.tokens(split)
    tokens = stored.read(0, len(stored)).astype(np.int64).tolist()
    inputs = [task.corpus.end_of_text, *tokens[:-1]]
    total, scored = 0.0, 0
    for start in range(0, len(tokens), stride):
        stop = min(start + window, len(tokens))
        for place in range(scored, stop):
            logits = model.logits(torch.tensor([inputs[start : place + 1]]))[0]
            total -= float(logits.double().log_softmax(-1)[tokens[place]])
        scored = stop
        if stop == len(tokens):
            return total
    return total


@pytest.fixture
def trained(task: LanguageModeling) -> Any:
    """A model with opinions: its weights are blown up, so that context matters."""
    model = task.model(seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6.0)
    return model


@pytest.mark.parametrize(("window", "stride"), [(12, 12), (12, 5), (8, 1), (7, 7)])
def test_scores_equal_a_token_by_token_evaluation(
    task: LanguageModeling, trained: Any, context: Any, window: int, stride: int
) -> None:
    outcome = task.evaluate(trained, Evaluate(split="val", window=window, stride=stride, batch=3, examples=0), context)
    counts = task.corpus.counts("val")
    nats = token_by_token(task, trained, "val", window=window, stride=stride)
    expected = {
        "val/loss": nats / counts.tokens,
        "val/perplexity": math.exp(nats / counts.tokens),
        "val/bits_per_byte": nats / math.log(2) / counts.bytes,
        "val/word_perplexity": math.exp(nats / counts.words),
    }
    assert outcome.metrics == pytest.approx(expected, rel=1e-4)
    assert outcome.facts["evaluation.targets"] == counts.tokens
    assert context.done[-1][0] == context.done[-1][1]


def test_no_overlap_equals_validation_by_the_loop(task: LanguageModeling, trained: Any, context: Any) -> None:
    outcome = task.evaluate(trained, Evaluate(split="test", examples=0), context)
    data = task.data("test")
    sums: dict[str, float] = {}
    weight = 0.0
    with torch.no_grad():
        for begin in range(0, data.samples, 4):
            batch = data.batch(np.arange(begin, min(begin + 4, data.samples)), seed=0, step=0)
            losses = task.losses(trained, batch)
            for name, value in {"loss": losses.total, **losses.terms}.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            assert losses.weight == data.weight(batch)
            weight += losses.weight
    assert task.metrics("test", sums, weight) == pytest.approx(outcome.metrics, rel=1e-5)


def test_the_split_of_the_batch_changes_nothing(task: LanguageModeling, trained: Any, context: Any) -> None:
    values = [
        task.evaluate(trained, Evaluate(split="test", batch=batch, examples=0), context).metrics for batch in (1, 7)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_what_is_shown_beside_the_scores(task: LanguageModeling, context: Any) -> None:
    """A model trained for a moment on the text predicts later positions of a window better than the first."""
    model = task.model(seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    train = task.data("train")
    for step in range(80):
        batch = train.batch(train.order(0, step)[:32], seed=0, step=step)
        losses = task.losses(model, batch)
        optimizer.zero_grad()
        (losses.total / losses.weight).backward()
        optimizer.step()
    outcome = task.evaluate(model.eval(), Evaluate(split="val", examples=2, continuation=5), context)
    (shown,) = outcome.evaluations
    (series,) = shown.series
    assert len(series.x) == 12 and series.y[0] > np.mean(series.y[4:])
    assert sum(shown.distributions[0].counts) == task.corpus.counts("val").tokens
    assert len(shown.examples) == 2
    text = task.corpus.tokenizer()
    for example in shown.examples:
        start = int(example.id.split()[1])
        tokens = task.corpus.tokens("val").read(start, start + 11)
        assert (example.input, example.target) == (text.decode(tokens[:6]), text.decode(tokens[6:]))
        assert 0 <= example.scores["tokens equal"] <= 1


def test_a_window_beyond_the_context_is_refused(task: LanguageModeling, trained: Any, context: Any) -> None:
    with pytest.raises(ConfigError, match="context of 12"):
        task.evaluate(trained, Evaluate(window=13), context)
    with pytest.raises(ConfigError, match="stride 13"):
        task.evaluate(trained, Evaluate(stride=13), context)


def test_a_model_without_a_finite_loss_is_an_error(task: LanguageModeling, trained: Any, context: Any) -> None:
    with torch.no_grad():
        trained.norm.weight.fill_(math.nan)
    with pytest.raises(NotFiniteError, match="val"):
        task.evaluate(trained, Evaluate(split="val", examples=0), context)


def test_a_stop_is_heard(task: LanguageModeling, trained: Any, context: Any) -> None:
    context.stop = True
    with pytest.raises(StopRequested):
        task.evaluate(trained, Evaluate(split="val"), context)
