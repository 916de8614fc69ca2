"""Search against brute force: every kind of index, ties, masks, groups, files."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from ablab.contract.failure import AblabError
from ablab.models.search import IndexWriter, compress, files, open_index, search, state_loss
from ablab.models.search.best import NOTHING, Best, top
from ablab.models.search.codes import Residual, learn_residual, to_eight_bit
from ablab.models.search.shards import BoundedShard, ExactShard, Queries, from_tiles, to_tiles


@pytest.fixture(autouse=True)
def few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def themed(count: int, *, seed: int = 0, themes: int = 40) -> torch.Tensor:
    """Passages (n, 6, 32) that resemble each other in themes, as those of a trained encoder do."""
    centres = vectors(themes, 6, 32, seed=99)
    generator = torch.Generator().manual_seed(seed)
    chosen = centres[torch.randint(themes, (count,), generator=generator)]
    return normalize(chosen + 0.5 * torch.randn(chosen.shape, generator=generator) / 32**0.5, dim=-1)


def brute(queries: torch.Tensor, passages: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    products = torch.einsum("qtd,npd->qntp", queries.double(), passages.double())
    if mask is not None:
        products = products.masked_fill(~mask[None, :, None], -torch.inf)
    return products.amax(3).sum(2)


def written(folder, passages: torch.Tensor, *, mask=None, batch: int = 100, **options):
    with IndexWriter(folder, **options) as writer:
        for i in range(0, len(passages), batch):
            writer.add(passages[i : i + batch], None if mask is None else mask[i : i + batch])
    return open_index(folder)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(files, "SHARD_PASSAGES", 256)


@pytest.mark.parametrize(("dtype", "bounds"), [("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True)])
def test_exact_search_is_brute_force_over_what_is_stored(tmp_path, small_shards, dtype, bounds):
    passages, queries = themed(700), themed(9, seed=5)
    index = written(tmp_path, passages, dtype=dtype, bounds=bounds)
    assert len(index.content["shards"]) == 3
    stored = torch.cat(list(index.passages_by_shard()))
    assert torch.equal(stored, passages.bfloat16().float() if dtype == "bf16" else passages)
    expected = brute(queries, stored)
    found = search(index, queries, k=10)
    values, places = expected.topk(10)
    torch.testing.assert_close(found.scores.double(), values, rtol=0, atol=1e-4)
    assert (found.ids == places).float().mean() > 0.95
    torch.testing.assert_close(expected.gather(1, found.ids), values, rtol=0, atol=1e-4)


def test_bounds_hold_and_spare_most_products(tmp_path, monkeypatch):
    passages, queries = themed(600), themed(8, seed=7)
    index = written(tmp_path, passages, bounds=True)
    (shard,) = index.shards()
    if not isinstance(shard, BoundedShard):
        pytest.skip("this processor has no integer products")
    guessed, slack = shard.bounds(Queries(vectors=queries))
    off = (guessed.double() - brute(queries, passages)).abs()
    assert (off <= slack).all() and off.max() > 0
    scored: list[int] = []
    monkeypatch.setattr(
        BoundedShard,
        "exact",
        lambda self, query, places, real=BoundedShard.exact: scored.append(len(places)) or real(self, query, places),
    )
    search(index, queries, k=5)
    assert sum(scored) < 0.3 * 8 * 600


def test_one_vector_each_is_a_product(tmp_path):
    passages, queries = vectors(5000, 16), vectors(4, 16, seed=1)
    for options in ({}, {"dtype": "bf16", "bounds": True}):
        index = written(tmp_path / str(len(options)), passages, batch=777, **options)
        found = search(index, queries, k=7)
        kept = torch.cat(list(index.passages_by_shard()))[:, 0]
        torch.testing.assert_close(found.scores, (queries @ kept.T).topk(7).values, rtol=0, atol=1e-5)


def test_masked_vectors_count_for_nothing(tmp_path):
    passages, queries = vectors(300, 6, 32), vectors(5, 4, 32, seed=1)
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(300, 6, generator=generator) < 0.5
    mask[:, 2] = True
    query_mask = torch.tensor([[True, True, False, True]] * 5)
    index = written(tmp_path, passages, mask=mask)
    expected = brute(queries[:, query_mask[0]], passages, mask)
    found = search(index, queries, k=5, query_mask=query_mask)
    torch.testing.assert_close(found.scores.double(), expected.topk(5).values, rtol=0, atol=1e-5)


def test_groups_of_queries_change_nothing(tmp_path, small_shards):
    index = written(tmp_path, themed(400), bounds=False)
    queries = themed(10, seed=3)
    whole, parts = search(index, queries, k=6), search(index, queries, k=6, group=3)
    assert torch.equal(whole.ids, parts.ids)
    torch.testing.assert_close(whole.scores, parts.scores)


@pytest.mark.parametrize("bounds", [False, True])
def test_equal_scores_rank_by_position_across_shards(tmp_path, small_shards, bounds):
    one = vectors(1, 6, 32)
    passages = one.expand(600, 6, 32).clone()
    passages[5] = -passages[5]
    found = search(written(tmp_path, passages, bounds=bounds), one, k=8)
    assert found.ids.tolist() == [[0, 1, 2, 3, 4, 6, 7, 8]]


def test_a_pool_smaller_than_k_ends_early(tmp_path):
    for bounds in (False, True):
        found = search(written(tmp_path / str(bounds), vectors(3, 6, 32), bounds=bounds), vectors(2, 6, 32), k=5)
        assert (found.ids[:, 3:] == NOTHING).all() and torch.isinf(found.scores[:, 3:]).all()
        assert sorted(found.ids[0, :3].tolist()) == [0, 1, 2]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=6), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_the_running_best_is_a_stable_sort_of_all(blocks, k):
    best, first = Best(1, k), 0
    for block in blocks:
        best.add(torch.tensor([block], dtype=torch.float32), first)
        first += len(block)
    whole = torch.tensor([[value for block in blocks for value in block]], dtype=torch.float32)
    values, places = whole.sort(dim=1, descending=True, stable=True)
    kept = min(k, first)
    assert best.ids[:, :kept].tolist() == places[:, :k].tolist()
    assert best.scores[:, :kept].tolist() == values[:, :k].tolist()
    assert (best.ids[:, kept:] == NOTHING).all()


def test_top_takes_the_earliest_of_equals():
    values, places = top(torch.tensor([[1.0, 2, 2, 2, 0], [3, 3, 3, 3, 3]]), 2)
    assert places.tolist() == [[1, 2], [0, 1]] and values.tolist() == [[2, 2], [3, 3]]


def test_tiles_keep_every_passage():
    passages = vectors(131, 3, 4)
    assert torch.equal(from_tiles(to_tiles(passages), 131), passages)


def test_eight_bits_lose_little_and_say_how_much():
    passages = themed(50)
    coded = to_eight_bit(passages)
    decoded = coded.codes * coded.scale[:, None, None]
    lost = (passages - decoded).norm(dim=2)
    assert torch.equal(lost.amax(1), coded.error) and coded.error.max() < 0.02
    assert not to_eight_bit(torch.zeros(2, 3, 4)).codes.any()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_residuals_are_packed_without_loss_and_decode_to_their_bucket(bits):
    sample = vectors(400, 16)
    codec = learn_residual(sample, bits=bits, centroids=8, seed=0)
    nearest, packed = codec.encode(sample.view(20, 20, 16))
    assert packed.shape == (20, 20, 16 * bits // 8) and nearest.shape == (20, 20)
    plain = Residual(centroids=codec.centroids, cuts=codec.cuts, levels=codec.levels, bits=bits, unit=False)
    rest = sample - codec.centroids[nearest.flatten()]
    levels = codec.levels[torch.bucketize(rest, codec.cuts)]
    torch.testing.assert_close(plain.decode(nearest, packed).view(400, 16), codec.centroids[nearest.flatten()] + levels)
    assert torch.allclose(codec.decode(nearest, packed).norm(dim=-1), torch.ones(20, 20))
    distance = torch.cdist(sample, codec.centroids)
    assert torch.equal(nearest.flatten().long(), distance.argmin(1))


def test_compressed_indexes_state_what_they_lose(tmp_path, small_shards):
    exact = written(tmp_path / "exact", themed(1000), facts={"model": "m"})
    queries = themed(40, seed=11)
    losses = {}
    for name, options in {
        "eight": {"kind": "8-bit"},
        "four": {"kind": "residual", "bits": 4, "centroids": 64},
        "two": {"kind": "residual", "bits": 2, "centroids": 64},
    }.items():
        index = compress(exact, tmp_path / name, **options)
        loss = losses[name] = state_loss(index, exact, queries, k=10)
        ours, theirs = search(index, queries, k=10).ids, search(exact, queries, k=10).ids
        overlap = [len(set(a) & set(b)) / 10 for a, b in zip(ours.tolist(), theirs.tolist(), strict=True)]
        assert loss.overlap == pytest.approx(sum(overlap) / 40)
        assert json.loads((tmp_path / name / "index.json").read_text())["facts"]["loss"]["overlap"] == loss.overlap
        assert open_index(tmp_path / name).content["facts"]["of"] == {"model": "m"}
    assert losses["eight"].overlap > 0.95 > losses["two"].overlap
    assert losses["eight"].overlap > losses["four"].overlap > losses["two"].overlap > 0.3
    assert 1 > losses["eight"].bytes > losses["four"].bytes > losses["two"].bytes
    assert state_loss(exact, exact, queries).overlap == 1


def test_integer_products_and_decoded_ones_agree(tmp_path):
    index = compress(written(tmp_path / "e", themed(200)), tmp_path / "c", kind="8-bit")
    (shard,) = index.shards()
    queries = Queries(vectors=themed(3, seed=4))
    torch.testing.assert_close(shard.scores(queries), shard._decoded(queries), rtol=0, atol=0.05)
    kept = from_tiles(shard.codes, 200) * shard.scale[:, None, None]
    torch.testing.assert_close(shard._decoded(queries).double(), brute(queries.vectors, kept), rtol=0, atol=1e-4)


def test_bf16_products_are_close():
    passages, queries = themed(200), themed(3, seed=4)
    shard = ExactShard(to_tiles(passages).bfloat16(), 200)
    torch.testing.assert_close(
        shard.scores(Queries(vectors=queries)).double(), brute(queries, passages), rtol=0, atol=0.1
    )


def test_mistakes_are_named(tmp_path):
    index = written(tmp_path / "good", vectors(3, 6, 32))
    with pytest.raises(AblabError, match="vectors of 32 numbers"):
        search(index, vectors(2, 6, 16), k=3)
    with pytest.raises(AblabError, match="at least one passage"):
        search(index, vectors(2, 6, 32), k=0)
    with pytest.raises(AblabError, match="query 1 is not finite"):
        search(index, torch.stack([vectors(6, 32), torch.full((6, 32), torch.nan)]), k=1)
    with pytest.raises(AblabError, match="no index here"):
        open_index(tmp_path)
    with pytest.raises(AblabError, match="passage 4 are not finite"):
        written(tmp_path / "nan", torch.cat([vectors(4, 6, 32), torch.full((1, 6, 32), torch.inf)]))
    assert not (tmp_path / "nan" / "index.json").exists(), "an index that was not finished is not there"
    with pytest.raises(AblabError, match="no vector that counts"):
        written(tmp_path / "empty", vectors(2, 6, 32), mask=torch.zeros(2, 6, dtype=torch.bool))
    with pytest.raises(AblabError, match=r"shape \(5, 32\) follow"), IndexWriter(tmp_path / "mixed") as writer:
        writer.add(vectors(2, 6, 32))
        writer.add(vectors(2, 5, 32))
    with pytest.raises(AblabError, match="no passage was added"), IndexWriter(tmp_path / "none"):
        pass
    with pytest.raises(AblabError, match="1, 2, 4 or 8"):
        compress(index, tmp_path / "c", kind="residual", bits=3)
    with pytest.raises(AblabError, match="has no exact vectors"):
        compress(compress(index, tmp_path / "8", kind="8-bit"), tmp_path / "88", kind="8-bit")


def test_damage_is_named(tmp_path):
    written(tmp_path, vectors(3, 6, 32))
    shard = tmp_path / "shard-00000.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-4])
    with pytest.raises(AblabError, match=r"shard-00000.safetensors: not the size"):
        open_index(tmp_path)
    shard.write_bytes(b"\xff" * len(content))
    with pytest.raises(AblabError, match=r"shard-00000.safetensors: missing or damaged"):
        search(open_index(tmp_path), vectors(1, 6, 32), k=1)
    shard.unlink()
    with pytest.raises(AblabError, match="make the index again"):
        open_index(tmp_path)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(AblabError, match=r"index.json: damaged"):
        open_index(tmp_path)
