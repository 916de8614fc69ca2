"""What happens to a page on its way into a file: a little rotation, blur, uneven light, noise, JPEG. Text stays whole.

All draws take the caller's generator. The truth does not change: the picture only grows where it is turned.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Level = Literal["none", "light", "strong"]


@dataclass(frozen=True, slots=True)
class Strength:
    """Largest rotation (degrees), blur (pixels), noise and shadow (of 255), and the lowest JPEG quality."""

    turn: float
    blur: float
    noise: float
    shadow: float
    quality: int


STRENGTHS: dict[Level, Strength] = {
    "light": Strength(turn=1.0, blur=0.5, noise=4.0, shadow=16.0, quality=75),
    "strong": Strength(turn=4.0, blur=0.9, noise=10.0, shadow=50.0, quality=45),
}


def augment(image: Image, *, level: Level, paper: tuple[int, int, int], generator: np.random.Generator) -> Image:
    """Return the picture as a scanner (light) or a telephone (strong) would have it; "none" returns it as it is.

    Args:
        image: RGB.
        level: how much.
        paper: colour of the corners that a rotation uncovers.
        generator: of all draws; every step draws whether it happens, so that pictures differ in kind too.
    """
    from PIL import Image as pil
    from PIL import ImageFilter

    if level == "none":
        return image
    strength = STRENGTHS[level]
    if generator.random() < 0.6:
        angle = float(generator.uniform(-strength.turn, strength.turn))
        image = image.rotate(angle, resample=pil.Resampling.BICUBIC, expand=True, fillcolor=paper)
    if generator.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(float(generator.uniform(0.2, strength.blur))))
    pixels: np.ndarray = np.asarray(image, dtype=np.float32)
    if generator.random() < 0.5:
        pixels = pixels - _shadow(pixels.shape[0], pixels.shape[1], strength.shadow, generator)[..., None]
    if generator.random() < 0.6:
        pixels = pixels + generator.normal(0, float(generator.uniform(0.5, strength.noise)), pixels.shape)
    image = pil.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    if generator.random() < 0.5:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(generator.integers(strength.quality, 96)))
        image = pil.open(stream).convert("RGB")
    return image


def _shadow(height: int, width: int, most: float, generator: np.random.Generator) -> np.ndarray:
    """Return what light falls short by: a slope across the page, (height, width)."""
    angle = float(generator.uniform(0, 2 * np.pi))
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    slope = (np.cos(angle) * columns + np.sin(angle) * rows + 1.5) / 3
    return np.asarray(slope * float(generator.uniform(0.3, 1.0)) * most, dtype=np.float32)
