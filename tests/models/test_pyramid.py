"""Scales, their fusion, and what dropping keeps: by hand, by transformers' own pixel shuffle, and by invariants."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.failure import ConfigError
from ablab.models.pyramid import Dropping, Pyramid, pixel_shuffle


def states(count: int = 3, *, side: int = 16, width: int = 6, batch: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, side * side, width) for _ in range(count)]


def test_scales_are_means_of_the_cells_below_them():
    pyramid = Pyramid(width=6)
    found = pyramid.split(states(), (16, 16))
    assert [scale.grid for scale in found] == [(4, 4), (8, 8), (16, 16)]
    cell = states()[0].unflatten(1, (16, 16))[:, 4:8, 8:12].mean((1, 2))
    torch.testing.assert_close(found[0].features.unflatten(1, (4, 4))[:, 1, 2], cell)
    assert torch.equal(found[2].features, states()[2])


def test_fusions_put_each_scale_over_the_place_it_covers():
    for fusion, width in (("concatenate", 18), ("average", 6), ("attention", 6)):
        pyramid = Pyramid(width=6, fusion=fusion)
        scales = pyramid.split(states(), (16, 16))
        fused = pyramid(scales)
        assert fused.features.shape == (2, 256, width) and pyramid.out_width == width and fused.grid == (16, 16)
        at = [scales[n].features.unflatten(1, scales[n].grid)[:, 5 >> s, 9 >> s] for n, s in ((0, 2), (1, 1), (2, 0))]
        here = fused.features.unflatten(1, (16, 16))[:, 5, 9]
        if fusion == "concatenate":
            torch.testing.assert_close(here, torch.cat(at, -1))
        elif fusion == "average":
            torch.testing.assert_close(here, sum(at) / 3)
        else:
            lowest, highest = torch.stack(at).amin(0), torch.stack(at).amax(0)
            assert ((here >= lowest - 1e-6) & (here <= highest + 1e-6)).all()


@given(st.sampled_from(["attention", "random", "uniform"]), st.floats(0, 0.95), st.integers(0, 80), st.floats(0, 1))
def test_as_many_whole_blocks_are_kept_as_the_rate_says(by, rate, least, warm):
    dropping = Dropping(rates=(rate,), by=by, least=least)
    mask = dropping.mask(0, grid=(8, 12), batch=3, received=torch.rand(3, 96), warm=warm)
    blocks = mask.unflatten(1, (4, 2, 6, 2)).permute(0, 1, 3, 2, 4).flatten(3)
    assert (blocks.all(-1) == blocks.any(-1)).all()
    kept = min(24, max(-(-least // 4), round(24 * (1 - warm * rate))))
    assert (mask.sum(1) == 4 * kept).all()


def test_the_least_looked_at_goes_first_and_zeros_stay_in_its_place():
    dropping = Dropping(rates=(0.5,), least=0, block=1)
    received = torch.arange(16.0).flip(0).expand(2, -1)
    mask = dropping.mask(0, grid=(4, 4), batch=2, received=received)
    assert mask[0].tolist() == [True] * 8 + [False] * 8
    pyramid = Pyramid(width=6, scales=(1.0,), dropping=dropping)
    (scale,) = pyramid.split(states(1, side=4), (4, 4), received=[received])
    assert (scale.features[:, 8:] == 0).all() and torch.equal(scale.features[:, :8], states(1, side=4)[0][:, :8])


def test_a_small_scale_keeps_its_least_and_warming_up_begins_with_everything():
    dropping = Dropping()
    assert dropping.kept(0, (8, 8)) == 16 and dropping.kept(2, (32, 32)) == round(256 * 0.9)
    whole = dropping.mask(1, grid=(16, 16), batch=1, received=torch.rand(1, 256), warm=0.0)
    assert whole.all()


def test_a_place_is_dropped_where_every_scale_dropped_it():
    dropping = Dropping(rates=(0.5, 0.5), least=0, by="random")
    pyramid = Pyramid(width=6, scales=(0.5, 1.0), dropping=dropping)
    scales = pyramid.split(states(2), (16, 16), generator=torch.Generator().manual_seed(3))
    fused = pyramid(scales)
    coarse = scales[0].kept.unflatten(1, (8, 8)).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
    assert torch.equal(fused.kept, coarse | scales[1].kept)
    assert torch.equal(fused.features.abs().sum(-1) > 0, fused.kept)


def test_random_dropping_is_drawn_from_its_generator():
    dropping = Dropping(by="random", rates=(0.5,), least=0)
    draw = [
        dropping.mask(0, grid=(8, 8), batch=2, received=None, generator=torch.Generator().manual_seed(n))
        for n in (1, 1, 2)
    ]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])


def test_pixel_shuffle_is_that_of_transformers():
    from transformers.models.internvl.modeling_internvl import InternVLModel

    x = torch.randn(2, 48, 5)
    found, grid = pixel_shuffle(x, (6, 8))
    theirs = InternVLModel.pixel_shuffle(None, x.unflatten(1, (6, 8)), 0.5)
    assert grid == (3, 4)
    assert torch.equal(found, theirs.flatten(1, 2))
    with pytest.raises(ConfigError, match="5 x 8"):
        pixel_shuffle(torch.randn(1, 40, 5), (5, 8))


def test_rates_and_scales_go_together():
    with pytest.raises(ConfigError, match="2 drop rates for 3 scales"):
        Pyramid(width=4, dropping=Dropping(rates=(0.1, 0.2)))
    with pytest.raises(ConfigError, match="attention"):
        Dropping(rates=(0.5,)).mask(0, grid=(4, 4), batch=1, received=None)
