"""Single lines of text on paper of one colour, to be read as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ablab.data.rendering.fonts import load
from ablab.data.rendering.sample import Pen, Sample, Turn, colours, one_font
from ablab.data.rendering.wording import Language, Wording, amount, choose, code, date, telephone

_ASKS = {
    "en": (
        "What is written in the image?",
        "Read the text.",
        "What does the text say?",
        "Transcribe the line of text.",
    ),
    "ko": (
        "이미지에 무엇이 쓰여 있습니까?",
        "글자를 읽으세요.",
        "쓰여 있는 글을 그대로 적으세요.",
        "이 줄에는 뭐라고 쓰여 있나요?",
    ),
}


def line(
    wording: Wording, fonts: Sequence[Path], language: Language, generator: np.random.Generator, most: int
) -> Sample:
    """Return a line: a word, several, a sentence, a date, an amount, a number or a telephone number."""
    from PIL import Image, ImageDraw

    text, font = _text(wording, language, generator), one_font(fonts, generator)
    size = int(generator.integers(20, 49))
    ink, paper = colours(generator)
    left, top, right, bottom = load(font, size).getbbox(text)
    margins = generator.integers(4, 25, 4)
    width = int(np.ceil(right - left)) + int(margins[0] + margins[1])
    height = int(np.ceil(bottom - top)) + int(margins[2] + margins[3])
    image = Image.new("RGB", (width, height), paper)
    pen = Pen(draw=ImageDraw.Draw(image), written=[])
    at = (int(margins[0] - np.floor(left)), int(margins[2] - np.floor(top)))
    pen.write(text, at, font=font, size=size, ink=ink)
    turn = Turn(question=choose(_ASKS[language], generator), answer=text)
    return Sample(image=image, written=tuple(pen.written), turns=(turn,), language=language, paper=paper)


def _text(wording: Wording, language: Language, generator: np.random.Generator) -> str:
    form = generator.random()
    if form < 0.25:
        return wording.word(language, generator)
    if form < 0.4:
        return " ".join(wording.words(language, int(generator.integers(2, 4)), generator))
    if form < 0.7:
        return wording.sentence(language, generator, longest=60)
    numbers: tuple[Callable[[], str], ...] = (
        lambda: date(language, generator),
        lambda: amount(language, generator)[1],
        lambda: code(generator),
        lambda: telephone(generator),
        lambda: f"{wording.place(language, generator)} {int(generator.integers(1, 1000))}",
    )
    return choose(numbers, generator)()
