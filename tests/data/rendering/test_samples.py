"""Is what the truth says really in the picture? Looked at by other means than those that drew it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from ablab.data.rendering.fonts import missing
from ablab.data.rendering.sample import READABLE, Sample, colours, contrast
from ablab.data.rendering.sets import Place, make
from ablab.data.rendering.settings import KINDS, Kind, Rendered
from ablab.data.rendering.wording import Language

PLAIN = Rendered(rows=1, augmentation="none", questions=8)
STRONG = Rendered(rows=1, augmentation="strong", questions=8)


def sample(kind: Kind, language: Language, number: int, fonts: tuple[Path, ...], settings: Rendered = PLAIN) -> Sample:
    return make(Place(number=number, kind=kind, language=language), settings, fonts)


def ink(image: Image.Image, paper: tuple[int, int, int]) -> np.ndarray:
    """Return how far each pixel is from the paper, 0 to 1."""
    away = np.abs(np.asarray(image, dtype=np.float32) - np.array(paper, dtype=np.float32)).max(-1)
    return away / max(1.0, float(away.max()))


def cropped(mask: np.ndarray, size: tuple[int, int] = (240, 24)) -> np.ndarray:
    """Return the part of a mask that holds ink, at one size, centred and of unit length."""
    rows, columns = np.flatnonzero((mask > 0.4).any(1)), np.flatnonzero((mask > 0.4).any(0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scaled = np.asarray(Image.fromarray((part * 255).astype(np.uint8)).resize(size), dtype=np.float32)
    scaled = scaled - scaled.mean()
    return scaled / np.linalg.norm(scaled)


def likeness(image: Image.Image, paper: tuple[int, int, int], text: str, fonts: tuple[Path, ...]) -> float:
    """Return the best correlation of a picture with a text written in any of the fonts."""
    seen = cropped(ink(image, paper))
    best = -1.0
    for font in fonts:
        mask = ImageFont.truetype(str(font), 48).getmask(text)
        written = np.asarray(mask, dtype=np.float32).reshape(mask.size[::-1]) / 255
        best = max(best, float((seen * cropped(written)).sum()))
    return best


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_line_shows_its_text_and_no_other(language: Language, fonts: tuple[Path, ...]) -> None:
    made = [sample("line", language, i, fonts) for i in range(7)]
    texts = [one.turns[0].answer for one in made]
    for one, text in zip(made, texts, strict=True):
        found = {other: likeness(one.image, one.paper, other, fonts) for other in texts}
        assert max(found, key=lambda other: found[other]) == text
        assert found[text] > 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_stands_whole_in_its_box(kind: Kind, fonts: tuple[Path, ...]) -> None:
    for language in ("en", "ko"):
        for number in range(3 if kind == "chart" else 8):
            one = sample(kind, language, number, fonts)
            dark = ink(one.image, one.paper)
            assert one.written
            for written in one.written:
                left, top, right, bottom = written.box
                assert 0 <= left < right <= one.image.width and 0 <= top < bottom <= one.image.height
                assert dark[top:bottom, left:right].max() > 0.2, written.text


def test_nothing_of_a_line_stands_outside_its_box(fonts: tuple[Path, ...]) -> None:
    for number in range(20):
        one = sample("line", "ko", number, fonts)
        dark = ink(one.image, one.paper)
        left, top, right, bottom = one.written[0].box
        dark[top:bottom, left:right] = 0
        assert dark.max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_letter_has_a_glyph(kind: Kind, fonts: tuple[Path, ...]) -> None:
    for language in ("en", "ko"):
        for number in range(3 if kind == "chart" else 20):
            for written in sample(kind, language, number, fonts).written:
                assert not any(missing(written.text, font) for font in fonts)


@pytest.mark.parametrize("kind", ["line", "table"])
def test_a_sample_is_a_function_of_seed_and_number(kind: Kind, fonts: tuple[Path, ...]) -> None:
    one, again = (sample(kind, "ko", 3, fonts, STRONG) for _ in range(2))
    assert one.image.tobytes() == again.image.tobytes() and one.turns == again.turns
    other = STRONG.model_copy(update={"seed": 1})
    assert sample(kind, "ko", 3, fonts, other).image.tobytes() != one.image.tobytes()
    assert sample(kind, "ko", 4, fonts, STRONG).turns != one.turns


def test_a_chart_is_drawn_the_same_again(fonts: tuple[Path, ...]) -> None:
    one, again = (sample("chart", "en", 1, fonts) for _ in range(2))
    assert one.image.tobytes() == again.image.tobytes() and one.written == again.written


def test_ink_can_be_read_on_its_paper() -> None:
    generator = np.random.default_rng(0)
    assert all(contrast(*colours(generator)) >= READABLE for _ in range(200))
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21.0)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)  # WCAG's own example


def test_augmentation_leaves_the_text_readable_and_whole(fonts: tuple[Path, ...]) -> None:
    from ablab.data.rendering.augmentation import augment

    made = [sample("line", "ko", i, fonts) for i in range(7)]
    texts = [one.turns[0].answer for one in made]
    changed = 0
    for i, one in enumerate(made):
        for level in ("light", "strong"):
            found = augment(one.image, level=level, paper=one.paper, generator=np.random.default_rng(i))
            assert found.mode == "RGB"
            assert found.width >= one.image.width and found.height >= one.image.height
            changed += found.tobytes() != one.image.tobytes()
            again = augment(one.image, level=level, paper=one.paper, generator=np.random.default_rng(i))
            assert again.tobytes() == found.tobytes()
            if level == "light":
                flat = Image.fromarray(np.asarray(found))
                likely = {other: likeness(flat, one.paper, other, fonts) for other in texts}
                assert max(likely, key=lambda other: likely[other]) == texts[i]
    assert changed > 8
    assert augment(made[0].image, level="none", paper=(0, 0, 0), generator=np.random.default_rng(0)) is made[0].image
