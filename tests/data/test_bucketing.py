"""Similar lengths side by side: every sample once, groups laid to the steps, budgets kept."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.data.bucketing import grouped_order, padding_share, within_budget


def order(lengths: np.ndarray, batch: int, epoch: int, seed: int = 0) -> np.ndarray:
    return grouped_order(lengths, batch=batch, epoch=epoch, generator=np.random.default_rng((seed, epoch)))


@given(st.integers(1, 97), st.integers(1, 9), st.integers(0, 5))
def test_an_epoch_holds_every_sample_once(samples: int, batch: int, epoch: int) -> None:
    lengths = np.random.default_rng(3).integers(1, 50, samples)
    assert sorted(order(lengths, batch, epoch).tolist()) == list(range(samples))
    assert np.array_equal(order(lengths, batch, epoch), order(lengths, batch, epoch))


@pytest.mark.parametrize(("samples", "batch"), [(1000, 8), (1003, 8), (997, 16)])
def test_steps_hold_similar_lengths_even_where_epochs_end_inside_one(samples: int, batch: int) -> None:
    lengths = np.random.default_rng(1).integers(10, 500, samples)
    stream = np.concatenate([order(lengths, batch, epoch) for epoch in range(3)])
    steps = [lengths[stream[low : low + batch]] for low in range(0, len(stream) - batch, batch)]
    shuffled = np.random.default_rng(0).permutation(len(stream))
    mixed = [lengths[stream[shuffled[low : low + batch]]] for low in range(0, len(stream) - batch, batch)]
    assert padding_share(steps) < 0.08
    assert padding_share(mixed) > 0.4


def test_groups_come_in_random_order_and_differ_by_epoch() -> None:
    lengths = np.arange(400)
    first, second = order(lengths, 8, 0), order(lengths, 8, 1)
    assert not np.array_equal(first, second)
    means = lengths[first].reshape(-1, 8).mean(1)
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.5


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200), st.integers(1, 12))
def test_micro_batches_keep_the_budget(sizes: list[int], budget: int, most: int) -> None:
    lengths = np.array(sizes)
    ids = np.arange(len(sizes))

    def cost(left: np.ndarray) -> int:
        return int((np.arange(1, len(left) + 1) * lengths[left][0] <= budget).sum())

    parts = within_budget(ids, cost, lengths, most=most)
    assert sorted(np.concatenate(parts).tolist()) == ids.tolist()
    for part in parts:
        assert len(part) <= most
        assert len(part) == 1 or len(part) * lengths[part].max() <= budget
    assert all(lengths[a].min() >= lengths[b].max() for a, b in pairwise(parts))
