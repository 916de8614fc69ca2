"""Composes the pictures: one drawing, or up to four in the quarters of a square, one of them perhaps a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ablab.data.emoji_questions.things import Drawing, Pictures

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 48
#: Quarters of a picture, by what they are called in English and Korean, and their corner.
PLACES: tuple[tuple[tuple[str, str], tuple[int, int]], ...] = (
    (("top left", "왼쪽 위"), (0, 0)),
    (("top right", "오른쪽 위"), (SIDE // 2, 0)),
    (("bottom left", "왼쪽 아래"), (0, SIDE // 2)),
    (("bottom right", "오른쪽 아래"), (SIDE // 2, SIDE // 2)),
)


@dataclass(frozen=True, slots=True)
class Item:
    """Something in a picture: a drawing or a number, where (None fills the picture), and its box in pixels."""

    drawing: Drawing | None
    number: int | None
    place: int | None
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and what is in it."""

    items: tuple[Item, ...]

    @property
    def drawings(self) -> tuple[Drawing, ...]:
        """The drawings in it."""
        return tuple(item.drawing for item in self.items if item.drawing is not None)

    @property
    def categories(self) -> set[tuple[str, str]]:
        """The categories that are in it."""
        return {drawing.thing.category for drawing in self.drawings}

    @property
    def number(self) -> Item | None:
        """The number written in it."""
        return next((item for item in self.items if item.number is not None), None)


def single(drawing: Drawing, generator: np.random.Generator) -> Scene:
    """Return a picture of one thing, at a random size and place."""
    side = int(generator.integers(36, SIDE + 1))
    x, y = (int(value) for value in generator.integers(0, SIDE - side + 1, size=2))
    return Scene((Item(drawing, None, None, (x, y, x + side, y + side)),))


def several(drawings: Sequence[Drawing], generator: np.random.Generator, *, number: int | None = None) -> Scene:
    """Return a picture with things in different quarters, and perhaps a number in another."""
    things: list[Drawing | None] = list(drawings)
    if number is not None:
        things.append(None)
    places = generator.permutation(len(PLACES))[: len(things)]
    items = []
    for thing, place in zip(things, places.tolist(), strict=True):
        side = int(generator.integers(20, SIDE // 2 + 1))
        slack = SIDE // 2 - side
        x, y = (
            corner + int(shift)
            for corner, shift in zip(PLACES[place][1], generator.integers(0, slack + 1, size=2), strict=True)
        )
        items.append(Item(thing, number if thing is None else None, place, (x, y, x + side, y + side)))
    return Scene(tuple(items))


def draw(scene: Scene, pictures: Pictures) -> Image:
    """Return the picture of a scene, 48 x 48 on white."""
    from PIL import Image

    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    for item in scene.items:
        x, y, right, _ = item.box
        side = right - x
        if item.drawing is not None:
            canvas.paste(pictures.of(item.drawing).resize((side, side), Image.Resampling.BICUBIC), (x, y))
        elif item.number is not None:
            canvas.paste(_card(item.number, side), (x, y))
    return canvas


def _card(number: int, side: int) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    card = Image.new("RGB", (side, side), (255, 240, 170))
    pen = ImageDraw.Draw(card)
    font = ImageFont.load_default(size=side * 0.75)
    pen.text((side / 2, side / 2), str(number), fill="black", font=font, anchor="mm")
    return card
