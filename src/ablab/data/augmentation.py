"""Small random changes of images of one size: moved, lighter or darker; a function of a seed alone.

Things keep their colour and do not change sides: both tell drawings of one thing from those of another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ablab.contract.seeds import stream_seed

#: Largest change of the brightness, as a share of the whole range.
_LIGHT = 0.1


def augment(
    pixels: npt.NDArray[np.uint8], *, seed: int, step: int, ids: npt.NDArray[np.int64], strength: float
) -> npt.NDArray[np.uint8]:
    """Return images with a random move and brightness, each from the stream `augmentation`.

    Args:
        pixels: uint8 (B, 3, S, S).
        seed, step: of the run.
        ids: int64 (B,), samples the images belong to: their luck does not depend on their place in the batch.
        strength: largest move as a share of the side; 0 changes nothing. What moves in repeats the edge.
    """
    if strength <= 0:
        return pixels
    side = pixels.shape[-1]
    most = max(1, round(strength * side))
    found = np.empty_like(pixels)
    for place, (image, sample) in enumerate(zip(pixels, ids.tolist(), strict=True)):
        random = np.random.default_rng(stream_seed(seed, "augmentation", step, sample))
        down, right = random.integers(0, 2 * most + 1, size=2)
        moved = np.pad(image, ((0, 0), (most, most), (most, most)), mode="edge")
        moved = moved[:, down : down + side, right : right + side]
        found[place] = np.clip(moved + 255 * random.uniform(-_LIGHT, _LIGHT), 0, 255).astype(np.uint8)
    return found
