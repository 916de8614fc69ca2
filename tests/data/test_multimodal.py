"""Packing: a sample computes the same in company as alone; and the order that batches are drawn in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.models import ModelReference
from ablab.data.multimodal import batching_order, block_mask, pack, spread
from ablab.data.templates import IGNORE, Encoded
from ablab.models.vision_language import build_vision_language

TOKENS, IMAGE = 16, 7


def sample(length: int, images: int = 0, seed: int = 0) -> Encoded:
    generator = np.random.default_rng(seed)
    ids = generator.integers(10, 90, length)
    ids = np.concatenate([np.full(TOKENS * images, IMAGE), ids])
    labels = np.where(np.arange(len(ids)) >= len(ids) - length // 2, ids, IGNORE)
    return Encoded(ids=ids, labels=labels, images=tuple(f"{i}" for i in range(images)))


def test_a_token_sees_its_own_sample_up_to_itself() -> None:
    seen = block_mask(torch.tensor([[1, 1, 2, 2, 2, 0]]))[0, 0]
    wanted = torch.tensor([
        [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1],
    ])  # fmt: skip
    assert torch.equal(seen.int(), wanted)
    added = block_mask(torch.tensor([[1, 1, 2, 2, 2, 0]]), dtype=torch.float32)[0, 0]
    assert torch.equal(added == 0, seen) and added.min() == torch.finfo(torch.float32).min


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_packed_logits_and_gradients_are_those_of_separate_samples(attention: str, kind: str) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = build_vision_language(
        llm=ModelReference(config={"model_type": kind, **shape, "vocab_size": 99}, attention=attention),
        tower=ModelReference(config={"model_type": "clip_vision_model", **shape, "image_size": 28, "patch_size": 7}),
        image_token=IMAGE,
        seed=1,
    )
    # Heads draw small weights; larger ones make leaks between samples show.
    with torch.no_grad():
        for parameter in model.llm.parameters():
            parameter.mul_(3.0)
    samples = [sample(9, 1, 1), sample(5, 0, 2), sample(14, 2, 3), sample(3, 0, 4)]
    pixels = [
        torch.randn(len(one.images), 3, 28, 28, generator=torch.Generator().manual_seed(i))
        for i, one in enumerate(samples)
    ]

    def run(parts: list[list[int]]) -> tuple[dict[int, torch.Tensor], list[torch.Tensor], float]:
        model.zero_grad()
        logits, total = {}, 0.0
        for part in parts:
            packed = pack([samples[i] for i in part], row_tokens=48, pad=0)
            seen = [pixels[part[i]] for i in packed.order if len(pixels[part[i]])]
            given: dict[str, Any] = {
                "pixels": torch.cat(seen) if seen else None,
                "attention_mask": packed.mask(),
                "position_ids": packed.positions,
            }
            nats = model(packed.ids, labels=packed.labels, **given)
            nats.backward()
            total += float(nats.detach())
            with torch.no_grad():
                found = model(packed.ids, **given)
            for place, own in enumerate(_places(packed)):
                logits[part[own]] = found[_cells(packed, place)]
        return logits, [p.grad.clone() for p in model.parameters() if p.grad is not None], total

    alone = run([[0], [1], [2], [3]])
    together = run([[0, 1, 2, 3]])
    for index in alone[0]:
        assert torch.allclose(alone[0][index], together[0][index], atol=1e-5)
    assert alone[2] == pytest.approx(together[2], abs=1e-4)
    assert len(alone[1]) == len(together[1]) > 10
    for one, other in zip(alone[1], together[1], strict=True):
        assert torch.allclose(one, other, atol=1e-5 * max(1.0, float(one.abs().max())))


def _places(packed: Any) -> list[int]:
    return list(packed.order)


def _cells(packed: Any, place: int) -> torch.Tensor:
    """Which cells hold the sample at a place of the order."""
    counts = [int(row.max()) for row in packed.segments]
    row = 0
    while place >= counts[row]:
        place -= counts[row]
        row += 1
    cells = torch.zeros_like(packed.segments, dtype=torch.bool)
    cells[row] = packed.segments[row] == place + 1
    return cells


def test_position_ids_alone_would_leak() -> None:
    """The mask is what keeps samples apart: the test above can fail."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    from ablab.models.hub import load_model

    model = load_model(ModelReference(config={"model_type": "llama", **shape, "vocab_size": 99}), kind="causal")
    packed = pack([sample(9, seed=1), sample(8, seed=2)], row_tokens=48, pad=0)
    with torch.no_grad():
        kept = model(input_ids=packed.ids, attention_mask=packed.mask(), position_ids=packed.positions).logits
        leaks = model(
            input_ids=packed.ids, attention_mask=torch.ones_like(packed.ids), position_ids=packed.positions
        ).logits
    assert (kept - leaks).abs().max() > 1e-3


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30), row_tokens=st.integers(16, 128))
def test_packing_keeps_every_token_once(lengths: list[int], row_tokens: int) -> None:
    samples = [sample(length, seed=i) for i, length in enumerate(lengths)]
    packed = pack(samples, row_tokens=row_tokens, pad=0)
    assert sorted(packed.order) == list(range(len(samples)))
    assert int((packed.segments > 0).sum()) == sum(lengths)
    read = [packed.ids[row][packed.segments[row] == n] for row in range(len(packed.ids)) for n in
            range(1, int(packed.segments[row].max()) + 1)]  # fmt: skip
    for place, ids in zip(packed.order, read, strict=True):
        assert ids.tolist() == samples[place].ids.tolist()
    assert int((packed.labels != IGNORE).sum()) == sum(one.targets for one in samples)
    assert 0 <= packed.padding < 1


def test_little_is_padding() -> None:
    generator = np.random.default_rng(0)
    for count in (16, 32, 64):
        lengths = generator.choice([20, 40, 90, 300, 600], size=count).tolist()
        rows = spread(lengths, row_tokens=1024)
        width = max(sum(lengths[i] for i in row) for row in rows)
        assert 1 - sum(lengths) / (width * len(rows)) < 0.05


@pytest.mark.parametrize("count", [16, 128])
def test_samples_of_like_length_leave_little_padding_in_short_rows(count: int) -> None:
    lengths = np.random.default_rng(1).integers(66, 74, count).tolist()
    rows = spread(lengths, row_tokens=256)
    width = max(sum(lengths[i] for i in row) for row in rows)
    assert 1 - sum(lengths) / (width * len(rows)) < 0.05 and width <= 1.1 * 256


def test_batches_are_of_like_length_and_one_kind() -> None:
    generator = np.random.default_rng(0)
    kinds = (generator.random(1003) < 0.7).astype(np.int64)
    lengths = generator.integers(5, 500, 1003) + 576 * kinds
    order = batching_order(lengths, kinds, batch=16, seed=1, epoch=0)
    assert sorted(order.tolist()) == list(range(1003))
    batches = [order[i : i + 16] for i in range(0, 1003 - 16, 16)]
    pure = [len(set(kinds[batch].tolist())) == 1 for batch in batches]
    # Only what is left over of each kind and window may be mixed.
    assert sum(pure) >= len(batches) - 8
    spans = [int(np.ptp(lengths[batch])) for batch, one in zip(batches, pure, strict=True) if one]
    assert np.median(spans) < 60
    again = batching_order(lengths, kinds, batch=16, seed=1, epoch=0)
    assert np.array_equal(order, again)
    assert not np.array_equal(order, batching_order(lengths, kinds, batch=16, seed=2, epoch=0))
    assert not np.array_equal(order, batching_order(lengths, kinds, batch=16, seed=1, epoch=1))


def test_groups_lie_on_the_steps_of_later_epochs() -> None:
    lengths, kinds = np.arange(100), np.arange(100) % 2
    stream = np.concatenate([batching_order(lengths, kinds, batch=8, seed=3, epoch=e, window=4) for e in range(3)])
    pure = [len(set(kinds[stream[i : i + 8]].tolist())) == 1 for i in range(0, 296, 8)]
    assert sum(pure) > 0.7 * len(pure)
