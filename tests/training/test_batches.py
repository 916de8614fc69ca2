import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.failure import DataError
from ablab.training.accumulation import micro_batch, share, split
from ablab.training.batches import Prefetcher, Stream, aligned, make_batch


class Numbers:
    """Data whose sample is its own id."""

    def __init__(self, samples):
        self.samples = samples

    def order(self, seed, epoch):
        return np.random.default_rng([seed, epoch]).permutation(self.samples)

    def batch(self, ids, *, seed, step):
        return {"id": torch.from_numpy(ids.copy()), "name": "all", "rows": [int(i) for i in ids]}

    def weight(self, batch):
        return float(len(batch["id"]))


@given(samples=st.integers(1, 40), batch=st.integers(1, 30), steps=st.integers(1, 12))
def test_the_stream_is_the_epochs_orders_one_after_another(samples, batch, steps):
    data = Numbers(samples)
    stream = Stream(data, seed=3, batch=batch)
    got = np.concatenate([stream.ids(step) for step in range(steps)])
    epochs = -(-steps * batch // samples)
    whole = np.concatenate([data.order(3, epoch) for epoch in range(epochs)])
    assert got.tolist() == whole[: steps * batch].tolist()


@given(samples=st.integers(1, 40), batch=st.integers(1, 30), step=st.integers(0, 12))
def test_a_step_can_be_asked_for_without_those_before(samples, batch, step):
    walked = Stream(Numbers(samples), seed=3, batch=batch)
    for earlier in range(step):
        walked.ids(earlier)
    assert walked.ids(step).tolist() == Stream(Numbers(samples), seed=3, batch=batch).ids(step).tolist()


@given(count=st.integers(1, 50), size=st.integers(1, 8))
def test_shares_of_processes_are_the_whole_in_order_and_even(count, size):
    ids = np.arange(count)
    parts = [share(ids, rank=rank, size=size) for rank in range(size)]
    assert np.concatenate([part for _, part in parts]).tolist() == ids.tolist()
    assert [low for low, _ in parts] == np.cumsum([0] + [len(part) for _, part in parts])[:-1].tolist()
    assert max(len(part) for _, part in parts) - min(len(part) for _, part in parts) <= 1


@given(count=st.integers(1, 30), micro=st.integers(1, 40))
def test_micro_batches_hold_every_sample_once(count, micro):
    stream = Stream(Numbers(100), seed=0, batch=count)
    made = make_batch(stream, 2, micro=micro)
    assert torch.cat([part["id"] for part in made.micros]).tolist() == made.ids.tolist()
    assert [len(part["rows"]) for part in made.micros] == list(made.sizes)
    assert all(part["name"] == "all" for part in made.micros)
    assert made.weight == count
    assert [int(made.ids[offset]) for offset in made.offsets] == [int(part["id"][0]) for part in made.micros]


def test_epochs_are_counted_in_whole_batches():
    stream = Stream(Numbers(10), seed=0, batch=4)
    assert [stream.steps(epochs) for epochs in (0.1, 1, 2, 3)] == [1, 2, 5, 7]


def test_an_empty_split_is_an_error_of_the_data():
    with pytest.raises(DataError, match="no samples"):
        Stream(Numbers(0), seed=0, batch=4)


def test_a_micro_batch_never_exceeds_the_share_of_a_device():
    assert micro_batch(8, None, size=1) == 8
    assert micro_batch(8, 3, size=1) == 3
    assert micro_batch(9, None, size=2) == 5
    assert micro_batch(4, 100, size=1) == 4


def test_scalars_and_texts_are_shared_by_all_parts():
    parts = list(split({"x": torch.arange(4), "scale": torch.tensor(2.0), "tag": "abcd"}, 4, 2))
    assert [part["x"].tolist() for part in parts] == [[0, 1], [2, 3]]
    assert all(part["scale"].item() == 2.0 and part["tag"] == "abcd" for part in parts)


def test_floats_from_foreign_memory_are_aligned():
    memory = np.zeros(64, dtype=np.float32)
    crooked = torch.from_numpy(memory[1:33])
    moved = aligned({"x": crooked, "id": torch.arange(3)})
    assert moved["x"].data_ptr() % 64 == 0 and torch.equal(moved["x"], crooked)


@pytest.mark.parametrize(("price", "threaded"), [(0.02, True), (0.005, False)])
def test_items_come_in_order_whoever_makes_them(price, threaded):
    """Those that take more than a hundredth of the time between requests come from a thread, after a few."""
    now = [0.0]
    makers = []

    def make(n):
        now[0] += price
        makers.append(threading.get_ident())
        return n

    got = []
    with Prefetcher(make, 3, 15, clock=lambda: now[0]) as items:
        for item in items:
            got.append(item)
            now[0] += 1.0
    assert got == list(range(3, 15))
    here = threading.get_ident()
    assert [ident == here for ident in makers] == [True] * 4 + [not threaded] * 8


def test_the_thread_works_ahead_of_use():
    made = []
    with Prefetcher(lambda n: made.append(n) or n * n, 2, 7, ahead=2, share=0) as items:
        assert next(items) == 4
        limit = time.monotonic() + 5
        while len(made) < 3 and time.monotonic() < limit:
            time.sleep(0.001)
        assert len(made) >= 3
        assert list(items) == [9, 16, 25, 36]


@pytest.mark.parametrize("share", [0, 1])
def test_an_error_is_raised_where_the_item_is_taken(share):
    def make(n):
        if n == 1:
            raise DataError("row 7", row=7)
        return n

    with Prefetcher(make, 0, 5, share=share) as items:
        assert next(items) == 0
        with pytest.raises(DataError, match="row 7"):
            next(items)


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    with Prefetcher(lambda n: n, 0, 10**9, ahead=1, share=0) as items:
        next(items)
    assert threading.active_count() == before


def test_the_thread_takes_no_second_team_of_processors():
    torch.set_num_threads(2)
    try:
        with Prefetcher(lambda _: torch.get_num_threads(), 0, 1, share=0) as items:
            assert next(items) == 1
            assert torch.get_num_threads() == 2
        found = []
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert found == [2]
    finally:
        torch.set_num_threads(1)
