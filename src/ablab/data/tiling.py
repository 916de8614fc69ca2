"""Cuts a picture into tiles of one size, as InternVL does: the grid whose shape is nearest to the picture's.

Chen et al. 2024, "How Far Are We to GPT-4V?" (InternVL 1.5), dynamic resolution. What a tile costs in tokens is the
connector's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """How many tiles a picture may become.

    Args:
        size: pixels of a tile's side.
        most: tiles at most, the thumbnail not counted.
        least: tiles at least.
        thumbnail: whether the whole picture follows as one more tile where there are several.
    """

    size: int
    most: int = 12
    least: int = 1
    thumbnail: bool = True

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Return (columns, rows) for a picture of this size in pixels.

        The nearest aspect ratio wins; of grids of equal ratio the larger one, if the picture's area is more than half
        of that grid's.
        """
        ratio, area = width / height, width * height
        best, nearest = (1, 1), float("inf")
        for columns, rows in grids(self.least, self.most):
            distance = abs(ratio - columns / rows)
            if distance < nearest:
                best, nearest = (columns, rows), distance
            elif distance == nearest and area > 0.5 * self.size**2 * columns * rows:
                best = columns, rows
        return best

    def count(self, width: int, height: int) -> int:
        """Return the tiles a picture of this size becomes, thumbnail included."""
        columns, rows = self.grid(width, height)
        tiles = columns * rows
        return tiles + 1 if self.thumbnail and tiles > 1 else tiles

    def cut(self, image: Image) -> list[Image]:
        """Return the tiles row by row, each `size` pixels wide and high, the thumbnail last."""
        from PIL.Image import Resampling

        columns, rows = self.grid(*image.size)
        side = self.size
        whole = image.resize((columns * side, rows * side), Resampling.BICUBIC)
        tiles = [
            whole.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
            for row in range(rows)
            for column in range(columns)
        ]
        if self.thumbnail and len(tiles) > 1:
            tiles.append(image.resize((side, side), Resampling.BICUBIC))
        return tiles


@lru_cache(maxsize=64)
def grids(least: int, most: int) -> tuple[tuple[int, int], ...]:
    """Return all grids (columns, rows) of `least` to `most` tiles, fewest tiles first."""
    found = [(i, j) for i in range(1, most + 1) for j in range(1, most + 1) if least <= i * j <= most]
    return tuple(sorted(found, key=lambda grid: grid[0] * grid[1]))
