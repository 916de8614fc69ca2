"""Charts drawn with matplotlib: bars upright and lying, lines, pies; the numbers written in them are the truth."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from ablab.contract.failure import ConfigError
from ablab.data.rendering.sample import Box, Colour, Sample, Turn, Written, colours, one_font, some
from ablab.data.rendering.wording import Language, Wording, choose, filled

_MEASURES = {
    "en": ("Sales", "Visitors", "Orders", "Score", "Members", "Exports"),
    "ko": ("판매량", "방문객", "주문 수", "점수", "회원 수", "수출량"),
}
_ASK = {
    "en": {
        "title": "What is the title of the chart?", "value": "What is the value of {a}?",
        "most": "Which category has the highest value?", "least": "Which category has the lowest value?",
        "count": "How many categories are shown?", "difference": "What is the difference between {a} and {b}?",
        "total": "What is the sum of all values?", "kind": "What kind of chart is this?",
        "larger": "Which is larger, {a} or {b}?",
    },
    "ko": {
        "title": "차트의 제목은 무엇입니까?", "value": "{a}의 값은 얼마입니까?",
        "most": "값이 가장 큰 항목은 무엇입니까?",
        "least": "값이 가장 작은 항목은 무엇입니까?", "count": "항목은 모두 몇 개입니까?",
        "difference": "{a:and} {b}의 차이는 얼마입니까?", "total": "모든 값의 합은 얼마입니까?",
        "kind": "이것은 어떤 종류의 차트입니까?", "larger": "{a:and} {b} 중 어느 것이 더 큽니까?",
    },
}  # fmt: skip
_KINDS = {
    "en": {"bar": "bar chart", "lying": "horizontal bar chart", "line": "line chart", "pie": "pie chart"},
    "ko": {"bar": "막대그래프", "lying": "가로 막대그래프", "line": "선 그래프", "pie": "원그래프"},
}
_DPI = 100
#: A chart whose texts reach over its edge is drawn again, larger.
_TRIES, _GROWTH = 8, 1.15


def chart(
    wording: Wording, fonts: Sequence[Path], language: Language, generator: np.random.Generator, most: int
) -> Sample:
    """Return a chart of 3 to 6 categories with at most `most` questions about it.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    names = tuple(one for one in wording.words(language, 16, generator) if len(one) <= 14)[
        : int(generator.integers(3, 7))
    ]
    values = generator.permutation(np.arange(5, 100))[: len(names)]
    measure, year = choose(_MEASURES[language], generator), int(generator.integers(1990, 2026))
    title = f"{measure} {year}" if language == "en" else f"{year}년 {measure}"
    kind = choose(tuple(_KINDS[language]), generator)
    ink, paper = colours(generator, light=True)
    image, written = draw(
        kind, names, values, title, measure, font=one_font(fonts, generator), ink=ink, paper=paper, generator=generator
    )
    turns = some(questions(kind, names, values, title, language, generator), most, generator)
    return Sample(image=image, written=written, turns=turns, language=language, paper=paper)


def questions(
    kind: str, names: Sequence[str], values: np.ndarray, title: str, language: Language, generator: np.random.Generator
) -> list[Turn]:
    """Return questions; the values all differ, so that each has one answer."""
    ask = _ASK[language]
    one, other = (int(i) for i in generator.permutation(len(names))[:2])
    larger = names[one if values[one] > values[other] else other]
    turns = [
        Turn(question=ask["title"], answer=title),
        Turn(question=filled(ask["value"], a=names[one]), answer=str(int(values[one]))),
        Turn(question=ask["most"], answer=names[int(np.argmax(values))]),
        Turn(question=ask["least"], answer=names[int(np.argmin(values))]),
        Turn(question=ask["count"], answer=str(len(names))),
        Turn(
            question=filled(ask["difference"], a=names[one], b=names[other]),
            answer=str(abs(int(values[one] - values[other]))),
        ),
        Turn(question=ask["total"], answer=str(int(values.sum()))),
        Turn(question=filled(ask["larger"], a=names[one], b=names[other]), answer=larger),
        Turn(question=ask["kind"], answer=_KINDS[language][kind]),
    ]
    return turns


def draw(
    kind: str, names: Sequence[str], values: np.ndarray, title: str, measure: str, *, font: Path, ink: Colour,
    paper: Colour, generator: np.random.Generator,
) -> tuple[Any, tuple[Written, ...]]:  # fmt: skip
    """Return the drawn chart and the texts in it with their boxes."""
    from PIL import Image

    figure = _figure(generator, paper)
    axes = figure.add_subplot()
    write = _writer(font, ink, int(generator.integers(11, 14)))
    axes.set_facecolor(_share(paper))
    palette = [_share(_mix(generator)) for _ in names]
    texts = [axes.set_title(title, **write(3))]
    positions = np.arange(len(names))
    if kind == "pie":
        texts += _pie(axes, names, values, palette, write)
    else:
        texts += _axes(axes, kind, positions, names, values, palette, measure, write, ink)
    pixels, boxes = _settled(figure, texts)
    return Image.fromarray(pixels), tuple(Written(text=text, box=box) for text, box in boxes)


def _settled(figure: Any, texts: Sequence[Any]) -> tuple[np.ndarray, list[tuple[str, Box]]]:
    """Draw a figure, grown until every text is within it; return its pixels (H, W, 3) and where the texts stand."""
    for _ in range(_TRIES):
        figure.tight_layout()
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
        height, width = pixels.shape[:2]
        boxes = []
        for text in texts:
            if text.get_text():
                extent = text.get_window_extent()
                box = (int(extent.x0), int(height - extent.y1), ceil(extent.x1), ceil(height - extent.y0))
                boxes.append((text.get_text(), box))
        if all(min(box) >= 0 and box[2] <= width and box[3] <= height for _, box in boxes):
            return pixels, boxes
        figure.set_size_inches(*(figure.get_size_inches() * _GROWTH))
    raise RuntimeError(f"the texts of a chart do not fit: {[text for text, _ in boxes]}")


def _figure(generator: np.random.Generator, paper: Colour) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "drawing charts needs matplotlib: pip install 'ablab[plots]'", missing="matplotlib"
        ) from error
    size = (float(generator.integers(42, 61)) / 10, float(generator.integers(30, 43)) / 10)
    figure = Figure(figsize=size, dpi=_DPI, facecolor=_share(paper))
    FigureCanvasAgg(figure)
    return figure


def _writer(font: Path, ink: Colour, size: int) -> Any:
    """Return a function of how much larger a text is, to the options matplotlib's texts take."""
    from matplotlib.font_manager import FontProperties

    def options(more: int = 0) -> dict[str, Any]:
        return {"fontproperties": FontProperties(fname=str(font), size=size + more), "color": _share(ink)}

    return options


def _pie(axes: Any, names: Sequence[str], values: np.ndarray, palette: Sequence[Any], write: Any) -> list[Any]:
    labels = [f"{name}: {value}" for name, value in zip(names, values.tolist(), strict=True)]
    _, texts = axes.pie(values, labels=labels, colors=palette, textprops=write(), wedgeprops={"edgecolor": "white"})
    return list(texts)


def _axes(
    axes: Any, kind: str, positions: np.ndarray, names: Sequence[str], values: np.ndarray, palette: Sequence[Any],
    measure: str, write: Any, ink: Colour,
) -> list[Any]:  # fmt: skip
    """Draw bars or a line with its values written beside the marks; return the texts."""
    lying = kind == "lying"
    if kind == "line":
        axes.plot(positions, values, marker="o", color=palette[0])
        axes.set_ylim(0, float(values.max()) * 1.25)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif lying:
        axes.barh(positions, values, color=palette)
        axes.set_xlim(0, float(values.max()) * 1.2)
    else:
        axes.bar(positions, values, color=palette)
        axes.set_ylim(0, float(values.max()) * 1.2)
    along, across = (axes.yaxis, axes.xaxis) if lying else (axes.xaxis, axes.yaxis)
    slanted = {} if lying or sum(map(len, names)) <= 30 else {"rotation": 30, "ha": "right"}
    along.set_ticks(positions, list(names))
    for label in along.get_ticklabels():
        label.set(**write(), **slanted)
    for label in across.get_ticklabels():
        label.set(**write(-1))
    axes.tick_params(colors=_share(ink))
    texts = [across.set_label_text(measure, **write()), *along.get_ticklabels()]
    for position, value in zip(positions.tolist(), values.tolist(), strict=True):
        place = (value, position) if lying else (position, value)
        offset, align = ((4, 0), {"va": "center"}) if lying else ((0, 4), {"ha": "center"})
        texts.append(axes.annotate(str(value), place, xytext=offset, textcoords="offset points", **align, **write(-1)))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return texts


def _mix(generator: np.random.Generator) -> Colour:
    red, green, blue = (int(value) for value in generator.integers(40, 216, 3))
    return red, green, blue


def _share(colour: Colour) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255
