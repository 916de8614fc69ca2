"""What every kind of rendered picture is: an image, where each text stands in it, and questions with true answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ablab.data.rendering.fonts import load
from ablab.data.rendering.wording import Language, choose

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Colour = tuple[int, int, int]
#: Left, top, right, bottom, in pixels of the picture before augmentation.
Box = tuple[int, int, int, int]
#: Contrast of text and paper by WCAG 2's definition; 4.5 is what it asks of readable text.
READABLE = 4.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A question and its answer; `short` where the answer is a word, a number or a value."""

    question: str
    answer: str
    short: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A piece of text that stands in a picture."""

    text: str
    box: Box


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A picture of text before augmentation, and what is true of it."""

    image: Image
    written: tuple[Written, ...]
    turns: tuple[Turn, ...]
    language: Language
    paper: Colour


@dataclass(frozen=True, kw_only=True)
class Pen:
    """Writes on a picture and remembers what stands where."""

    draw: ImageDraw
    written: list[Written]

    def write(
        self, text: str, at: tuple[int, int], *, font: Path, size: int, ink: Colour,
        align: Literal["left", "middle", "right"] = "left",
    ) -> Box:  # fmt: skip
        """Write one line with its top left corner (or top middle, top right) at a place; return the box of its ink."""
        face = load(font, size)
        anchor = {"left": "la", "middle": "ma", "right": "ra"}[align]
        left, top, right, bottom = self.draw.textbbox(at, text, font=face, anchor=anchor)
        self.draw.text(at, text, font=face, fill=ink, anchor=anchor)
        box = (int(np.floor(left)), int(np.floor(top)), int(np.ceil(right)), int(np.ceil(bottom)))
        self.written.append(Written(text=text, box=box))
        return box


def width_of(text: str, *, font: Path, size: int) -> int:
    """Return how far a line of text reaches, in pixels."""
    return int(np.ceil(load(font, size).getlength(text)))


def wrapped(text: str, *, font: Path, size: int, width: int) -> list[str]:
    """Return a text as lines that fit a width; a word that is longer than that stands alone."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, font=font, size=size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def colours(generator: np.random.Generator, *, light: bool | None = None) -> tuple[Colour, Colour]:
    """Return colours of ink and paper that can be read on each other; `light` asks for light paper."""
    while True:
        bright = generator.random() < 0.75 if light is None else light
        paper = _grey_ish(generator, 205, 256) if bright else _grey_ish(generator, 0, 70)
        ink = _grey_ish(generator, 0, 110) if bright else _grey_ish(generator, 170, 256)
        if contrast(ink, paper) >= READABLE:
            return ink, paper


def _grey_ish(generator: np.random.Generator, low: int, high: int) -> Colour:
    red, green, blue = (int(value) for value in generator.integers(low, high, 3))
    return red, green, blue


def contrast(one: Colour, other: Colour) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Colour) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def some(turns: Sequence[Turn], most: int, generator: np.random.Generator) -> tuple[Turn, ...]:
    """Return at most so many of the questions, in a drawn order, no question twice."""
    found: dict[str, Turn] = {}
    for i in generator.permutation(len(turns)):
        found.setdefault(turns[i].question, turns[i])
    return tuple(list(found.values())[:most])


def one_font(fonts: Sequence[Path], generator: np.random.Generator) -> Path:
    """Return one of the fonts."""
    return choose(fonts, generator)
