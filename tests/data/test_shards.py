from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.failure import DataError
from ablab.data.shards import ShardWriter, Tokens, token_dtype


def test_the_type_is_the_smallest_that_holds_every_id() -> None:
    assert token_dtype(50257) == np.uint16
    assert token_dtype(65536) == np.uint16
    assert token_dtype(65537) == np.uint32


@given(
    documents=st.lists(st.lists(st.integers(0, 65535), max_size=9), max_size=12),
    shard_tokens=st.integers(1, 20),
    buffer=st.integers(1, 15),
)
def test_shards_joined_are_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], shard_tokens: int, buffer: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ablab.data.shards._BUFFER", buffer)
        writer = ShardWriter(folder, "train", dtype=token_dtype(65536), shard_tokens=shard_tokens)
        for document in documents:
            writer.write(np.array(document, dtype=np.uint32))
        writer.close()
    wanted = [token for document in documents for token in document]
    assert writer.tokens == len(wanted)
    assert len(writer.shards) == -(-len(wanted) // shard_tokens)
    tokens = Tokens([folder / name for name in writer.shards], dtype=token_dtype(65536), length=len(wanted))
    assert tokens.read(0, len(tokens)).tolist() == wanted
    for start in range(len(wanted)):
        for stop in (start, start + 1, start + 7, len(wanted) + 5):
            assert tokens.read(start, stop).tolist() == wanted[start:stop]


def test_a_shard_that_was_cut_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train-00000.bin"
    path.write_bytes(np.arange(10, dtype="<u2").tobytes())
    with pytest.raises(DataError, match="shards hold 10 tokens, the manifest says 11"):
        Tokens([path], dtype=token_dtype(300), length=11)
    with pytest.raises(DataError, match=r"train-00001\.bin: cannot be mapped"):
        Tokens([path, tmp_path / "train-00001.bin"], dtype=token_dtype(300), length=20)
    path.write_bytes(b"abc")
    with pytest.raises(DataError, match=r"train-00000\.bin: cannot be mapped"):
        Tokens([path], dtype=token_dtype(300), length=1)
