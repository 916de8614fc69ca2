from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.failure import DataError
from ablab.data.packing import TokenWindows
from ablab.data.shards import Tokens


def make(folder: Path, length: int, shards: int = 1) -> Tokens:
    parts = np.array_split(np.arange(length, dtype="<u2"), shards)
    files = []
    for i, part in enumerate(parts):
        files.append(folder / f"train-{i:05d}.bin")
        files[-1].write_bytes(part.tobytes())
    return Tokens(files, dtype=np.dtype("<u2"), length=length)


@given(length=st.integers(3, 60), context=st.integers(1, 20), shards=st.integers(1, 3))
def test_every_token_is_a_target_once(
    tmp_path_factory: pytest.TempPathFactory, length: int, context: int, shards: int
) -> None:
    tokens = make(tmp_path_factory.mktemp("windows"), length, shards)
    if length <= context:
        with pytest.raises(DataError, match=f"holds {length} tokens, fewer than one window"):
            TokenWindows(tokens, context=context)
        return
    windows = TokenWindows(tokens, context=context)
    batch = windows.batch(np.arange(windows.samples))
    assert batch.dtype == np.int64 and batch.shape == (windows.samples, context + 1)
    targets = batch[:, 1:].ravel().tolist()
    assert targets == list(range(1, len(targets) + 1))
    assert 0 <= length - 1 - len(targets) < context
    # Each input is the token before its target, at window borders too.
    assert (batch[:, :-1] + 1 == batch[:, 1:]).all()


def test_windows_of_one_shard_or_many_are_equal(tmp_path: Path) -> None:
    for shards in (1, 3, 7):
        folder = tmp_path / str(shards)
        folder.mkdir()
        windows = TokenWindows(make(folder, 1000, shards), context=33)
        ids = windows.order(5, 0)
        assert (windows.batch(ids)[:, 0] == ids * 33).all()


def test_the_order_is_a_permutation_of_seed_and_epoch(tmp_path: Path) -> None:
    windows = TokenWindows(make(tmp_path, 1001), context=10)
    orders = [windows.order(seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    for order in orders:
        assert order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(100))
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert windows.order(1, 0).tolist() == orders[0].tolist()


def test_the_order_never_changes_between_versions(tmp_path: Path) -> None:
    windows = TokenWindows(make(tmp_path, 81), context=10)
    assert windows.order(42, 0).tolist() == PINNED


#: Paired arms and resumed runs rely on it: a change here changes every result.
PINNED = [6, 7, 0, 3, 4, 5, 1, 2]


def test_threads_read_the_same_windows(tmp_path: Path) -> None:
    windows = TokenWindows(make(tmp_path, 5000, 3), context=7)
    batches = [windows.order(0, epoch)[:64] for epoch in range(20)]
    alone = [windows.batch(ids) for ids in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(windows.batch, batches))
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_an_id_outside_is_an_error(tmp_path: Path) -> None:
    windows = TokenWindows(make(tmp_path, 100), context=10)
    assert windows.samples == 9
    for wrong in (9, -1):
        with pytest.raises(IndexError, match=r"0\.\.8"):
            windows.batch(np.array([0, wrong]))
    assert windows.batch(np.array([], dtype=np.int64)).shape == (0, 11)
