"""Tiles by the rule of InternVL: nearest ratio, ties to the larger grid, thumbnail where there are several."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ablab.data.tiling import Tiling, grids


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((448, 448), (1, 1)),
        ((1344, 448), (3, 1)),
        # 1 : 1 ties 1x1, 2x2 and 3x3: 900 x 900 is more than half of 2x2 (896²/2) and less than half of 3x3.
        ((900, 900), (2, 2)),
        ((1000, 1000), (3, 3)),
        ((600, 600), (1, 1)),
        ((620, 1240), (1, 2)),
        ((640, 1280), (2, 4)),
        ((1600, 3200), (2, 4)),
        ((800, 600), (4, 3)),
    ],
)
def test_grids_worked_out_by_hand(size, grid):
    assert Tiling(size=448).grid(*size) == grid


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 12))
def test_no_grid_is_nearer_and_none_has_too_many_tiles(width, height, most):
    columns, rows = Tiling(size=64, most=most).grid(width, height)
    assert columns * rows <= most
    mine = abs(width / height - columns / rows)
    assert all(mine <= abs(width / height - i / j) + 1e-12 for i, j in grids(1, most))


def test_there_are_35_grids_of_up_to_12_tiles():
    assert len(grids(1, 12)) == sum(12 // i for i in range(1, 13)) == 35


def test_tiles_put_together_are_the_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    tiling = Tiling(size=32)
    tiles = tiling.cut(Image.fromarray(pixels))
    assert len(tiles) == tiling.count(96, 64) == 7 and all(tile.size == (32, 32) for tile in tiles)
    rows = [np.concatenate([np.asarray(tile) for tile in tiles[3 * row : 3 * row + 3]], axis=1) for row in range(2)]
    assert np.array_equal(np.concatenate(rows), pixels)
    assert len(Tiling(size=32, thumbnail=False).cut(Image.fromarray(pixels))) == 6
    assert len(tiling.cut(Image.fromarray(pixels[:32, :32]))) == 1
