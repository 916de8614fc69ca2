from __future__ import annotations

import numpy as np
import pytest

from ablab.models.loss import IGNORE
from ablab.tasks.language_modeling.task import LanguageModeling
from ablab.tasks.language_modeling.windows import Stream, WholeSplit


def everything(task: LanguageModeling, split: str) -> np.ndarray:
    tokens = task.corpus.tokens(split)
    return tokens.read(0, len(tokens)).astype(np.int64)


def test_training_windows_predict_the_next_token(task: LanguageModeling) -> None:
    train, tokens = task.data("train"), everything(task, "train")
    batch = train.batch(np.array([3, 0]), seed=0, step=0)
    for row, window in enumerate((3, 0)):
        assert batch["inputs"][row].tolist() == tokens[window * 12 : window * 12 + 12].tolist()
        assert batch["targets"][row].tolist() == tokens[window * 12 + 1 : window * 12 + 13].tolist()
    assert train.weight(batch) == 24


def test_an_epoch_is_a_permutation_that_the_seed_decides(task: LanguageModeling) -> None:
    train = task.data("train")
    first = train.order(1, 0)
    assert sorted(first.tolist()) == list(range(train.samples))
    assert np.array_equal(first, train.order(1, 0))
    assert not np.array_equal(first, train.order(1, 1))
    assert not np.array_equal(first, train.order(2, 0))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_measured_split_has_every_token_as_a_target_once(task: LanguageModeling, split: str) -> None:
    data, tokens = task.data(split), everything(task, split)
    assert len(tokens) % 12, "the last window must be a partial one for this test to say something"
    batch = data.batch(data.order(0, 0), seed=0, step=0)
    counted = batch["targets"] != IGNORE
    assert batch["targets"][counted].tolist() == tokens.tolist()
    assert batch["inputs"][counted].tolist() == [task.corpus.end_of_text, *tokens[:-1].tolist()]
    assert data.weight(batch) == len(tokens) == task.corpus.counts(split).tokens


def test_overlapping_spans_hide_what_was_scored_before(task: LanguageModeling) -> None:
    tokens = everything(task, "val")
    stream = Stream(task.corpus.tokens("val"), end_of_text=task.corpus.end_of_text)
    batch = stream.batch([(4, 10, 16)], width=12)
    assert batch["targets"].tolist() == [[IGNORE] * 6 + tokens[10:16].tolist()]
    assert batch["inputs"].tolist() == [tokens[3:15].tolist()]


def test_a_span_at_the_end_is_filled_up(task: LanguageModeling) -> None:
    tokens = everything(task, "val")
    n, end = len(tokens), task.corpus.end_of_text
    batch = WholeSplit(task.corpus.tokens("val"), context=n + 3, end_of_text=end).batch(np.array([0]), seed=0, step=0)
    assert batch["targets"].tolist() == [[*tokens.tolist(), IGNORE, IGNORE, IGNORE]]
    assert batch["inputs"].tolist() == [[end, *tokens[:-1].tolist(), end, end, end]]
