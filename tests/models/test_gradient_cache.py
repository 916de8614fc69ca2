"""Cached loss and gradient are those of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from ablab.models.contrastive import cross_entropy
from ablab.models.gradient_cache import encode_in_chunks
from ablab.models.maxsim import maxsim

ROWS = 12


class Encoder(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 8))
        self.calls = 0

    def encode(self, items: Mapping[str, Tensor]) -> Tensor:
        self.calls += 1
        return nn.functional.normalize(self.layers(items["x"]).view(-1, 2, 4), dim=-1)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, 6, generator=generator), torch.randn(ROWS, 6, generator=generator)


def loss_and_gradients(encoder: Encoder, batch: tuple[Tensor, Tensor], chunk: int, scale: float = 1.0):
    encoder.zero_grad()
    temperature = torch.tensor(2.0, requires_grad=True)
    torch.manual_seed(3)
    sides = [encode_in_chunks(encoder.encode, [{"x": part} for part in side.split(chunk)]) for side in batch]
    scores = maxsim(*sides) * temperature
    loss = cross_entropy(scores, torch.arange(ROWS), torch.zeros(ROWS, ROWS, dtype=torch.bool)).sum() * scale
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in encoder.parameters()], temperature.grad


@pytest.mark.parametrize("chunk", [1, 4, 5])
def test_loss_and_gradient_are_the_uncached_ones(batch, chunk: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder()
    expected = loss_and_gradients(encoder, batch, ROWS)
    found = loss_and_gradients(encoder, batch, chunk)
    torch.testing.assert_close(found[0], expected[0])
    for mine, theirs in zip([*found[1], found[2]], [*expected[1], expected[2]], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


def test_the_gradient_is_scaled_with_the_loss(batch) -> None:
    encoder = Encoder()
    once = loss_and_gradients(encoder, batch, 4)
    thrice = loss_and_gradients(encoder, batch, 4, scale=3.0)
    for mine, theirs in zip(thrice[1], once[1], strict=True):
        torch.testing.assert_close(mine, 3 * theirs)


def test_dropout_of_the_first_pass_is_replayed_in_the_second(batch) -> None:
    """With the masks of the first pass, the gradient is that of one graph over the same chunks."""
    torch.manual_seed(0)
    encoder = Encoder(dropout=0.5).train()
    cached = loss_and_gradients(encoder, batch, 4)

    encoder.zero_grad()
    torch.manual_seed(3)
    sides = [torch.cat([encoder.encode({"x": part}) for part in side.split(4)]) for side in batch]
    scores = maxsim(*sides) * 2.0
    cross_entropy(scores, torch.arange(ROWS), torch.zeros(ROWS, ROWS, dtype=torch.bool)).sum().backward()
    for mine, parameter in zip(cached[1], encoder.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, atol=1e-6, rtol=1e-5)


def test_the_generator_goes_on_where_the_first_pass_left_it(batch) -> None:
    encoder = Encoder(dropout=0.5).train()
    torch.manual_seed(5)
    encode_in_chunks(encoder.encode, [{"x": part} for part in batch[0].split(4)]).sum().backward()
    after = torch.rand(3)
    torch.manual_seed(5)
    for part in batch[0].split(4):
        encoder.encode({"x": part})
    assert torch.equal(after, torch.rand(3))


def test_autocast_is_replayed(batch) -> None:
    encoder = Encoder()
    seen: list[torch.dtype] = []
    encoder.layers[0].register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = encode_in_chunks(encoder.encode, [{"x": part} for part in batch[0].split(4)])
    vectors.float().sum().backward()
    assert seen == [torch.bfloat16] * 6


def test_without_gradient_nothing_is_encoded_twice(batch) -> None:
    encoder = Encoder()
    with torch.no_grad():
        encode_in_chunks(partial(encoder.encode), [{"x": part} for part in batch[0].split(4)])
    assert encoder.calls == 3
