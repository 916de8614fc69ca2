"""Pages: reports with a heading, a date, a number and paragraphs, and receipts with items and their total."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ablab.data.rendering.sample import Pen, Sample, Turn, colours, one_font, some, wrapped
from ablab.data.rendering.wording import Language, Wording, amount, choose, code, date, filled, money, telephone

#: Words of the forms, and the questions about them.
_FORM = {
    "en": {
        "date": "Date", "number": "No.", "author": "Author", "place": "Place", "telephone": "Telephone",
        "total": "Total", "receipt": "RECEIPT",
    },
    "ko": {
        "date": "날짜", "number": "번호", "author": "작성자", "place": "장소", "telephone": "전화",
        "total": "합계", "receipt": "영수증",
    },
}  # fmt: skip
_ASK = {
    "en": {
        "title": "What is the title of the document?", "date": "What is the date on the document?",
        "number": "What is the number of the document?", "author": "Who is the author?",
        "place": "Which place is named?", "telephone": "What is the telephone number?",
        "paragraphs": "How many paragraphs does the document have?", "first": "What does the first paragraph say?",
        "total": "What is the total?", "items": "How many items are on the receipt?",
        "price": "What is the price of {item}?",
        "dearest": "Which item is the most expensive?",
    },
    "ko": {
        "title": "문서의 제목은 무엇입니까?", "date": "문서의 날짜는 언제입니까?", "number": "문서 번호는 무엇입니까?",
        "author": "작성자는 누구입니까?", "place": "어느 장소가 적혀 있습니까?", "telephone": "전화번호는 무엇입니까?",
        "paragraphs": "문단은 모두 몇 개입니까?",
        "first": "첫 번째 문단에는 뭐라고 쓰여 있습니까?", "total": "합계는 얼마입니까?",
        "items": "영수증에는 품목이 몇 개 있습니까?", "price": "{item}의 가격은 얼마입니까?",
        "dearest": "가장 비싼 품목은 무엇입니까?",
    },
}  # fmt: skip
_NAMES = {
    "en": ("Anne Elliot", "Jane Fairfax", "Henry Tilney", "Emma Woodhouse", "John Knightley", "Mary Bennet"),
    "ko": ("김민준", "이서연", "박도윤", "최지우", "정하은", "강예준"),
}
_FIELDS = ("date", "number", "author", "place", "telephone")


def document(
    wording: Wording, fonts: Sequence[Path], language: Language, generator: np.random.Generator, most: int
) -> Sample:
    """Return a page with at most `most` questions about it."""
    kind = _receipt if generator.random() < 0.35 else _report
    return kind(wording, fonts, language, generator, most)


def _report(
    wording: Wording, fonts: Sequence[Path], language: Language, generator: np.random.Generator, most: int
) -> Sample:
    from PIL import Image, ImageDraw

    ask, form = _ASK[language], _FORM[language]
    font, body = one_font(fonts, generator), int(generator.integers(15, 21))
    ink, paper = colours(generator, light=True)
    width, margin = int(generator.integers(420, 641)), int(generator.integers(24, 49))
    image = Image.new("RGB", (width, 2000), paper)
    pen = Pen(draw=ImageDraw.Draw(image), written=[])
    title = _title(wording, language, generator)
    centred = generator.random() < 0.5
    y = margin
    for part in wrapped(title, font=font, size=body + 10, width=width - 2 * margin):
        at = (width // 2 if centred else margin, y)
        pen.write(part, at, font=font, size=body + 10, ink=ink, align="middle" if centred else "left")
        y += body + 20
    turns = [Turn(question=ask["title"], answer=title)]
    y += 8
    for field in sorted(generator.permutation(len(_FIELDS))[: int(generator.integers(1, 4))]):
        name = _FIELDS[field]
        value = _value(name, wording, language, generator)
        pen.write(f"{form[name]}: {value}", (margin, y), font=font, size=body, ink=ink)
        turns.append(Turn(question=ask[name], answer=value))
        y += body + 8
    count = int(generator.integers(1, 4))
    for i in range(count):
        y += body
        text = " ".join(wording.sentence(language, generator) for _ in range(int(generator.integers(1, 4))))
        for part in wrapped(text, font=font, size=body, width=width - 2 * margin):
            pen.write(part, (margin, y), font=font, size=body, ink=ink)
            y += body + 7
        if i == 0:
            turns.append(Turn(question=ask["first"], answer=text, short=False))
    turns.append(Turn(question=ask["paragraphs"], answer=str(count)))
    return _finished(image.crop((0, 0, width, y + margin)), pen, turns, language, paper, generator, most)


def _receipt(
    wording: Wording, fonts: Sequence[Path], language: Language, generator: np.random.Generator, most: int
) -> Sample:
    from PIL import Image, ImageDraw

    ask, form = _ASK[language], _FORM[language]
    font, size = one_font(fonts, generator), int(generator.integers(15, 21))
    ink, paper = colours(generator, light=True)
    width, margin = int(generator.integers(320, 421)), 24
    image = Image.new("RGB", (width, 1200), paper)
    pen = Pen(draw=ImageDraw.Draw(image), written=[])
    pen.write(form["receipt"], (width // 2, margin), font=font, size=size + 8, ink=ink, align="middle")
    y = margin + size + 24
    turns: list[Turn] = []
    for name in ("date", "number"):
        value = _value(name, wording, language, generator)
        pen.write(f"{form[name]}: {value}", (margin, y), font=font, size=size, ink=ink)
        turns.append(Turn(question=ask[name], answer=value))
        y += size + 8
    y = _rule(pen, y, margin, width, ink)
    items = [one for one in wording.words(language, 12, generator) if len(one) <= 16][: int(generator.integers(2, 7))]
    prices = [amount(language, generator, most=20_000)[0] for _ in items]
    for item, price in zip(items, prices, strict=True):
        pen.write(item, (margin, y), font=font, size=size, ink=ink)
        pen.write(money(language, price), (width - margin, y), font=font, size=size, ink=ink, align="right")
        turns.append(Turn(question=filled(ask["price"], item=item), answer=money(language, price)))
        y += size + 8
    y = _rule(pen, y, margin, width, ink)
    total = money(language, sum(prices))
    pen.write(form["total"], (margin, y), font=font, size=size + 2, ink=ink)
    pen.write(total, (width - margin, y), font=font, size=size + 2, ink=ink, align="right")
    turns += [Turn(question=ask["total"], answer=total), Turn(question=ask["items"], answer=str(len(items)))]
    if prices.count(max(prices)) == 1:
        turns.append(Turn(question=ask["dearest"], answer=items[prices.index(max(prices))]))
    bottom = y + size + margin
    return _finished(image.crop((0, 0, width, bottom)), pen, turns, language, paper, generator, most)


def _rule(pen: Pen, y: int, margin: int, width: int, ink: tuple[int, int, int]) -> int:
    pen.draw.line((margin, y + 4, width - margin, y + 4), fill=ink, width=1)
    return y + 14


def _finished(
    image: object, pen: Pen, turns: list[Turn], language: Language, paper: tuple[int, int, int],
    generator: np.random.Generator, most: int,
) -> Sample:  # fmt: skip
    from PIL.Image import Image

    assert isinstance(image, Image)
    chosen = some(turns, most, generator)
    return Sample(image=image, written=tuple(pen.written), turns=chosen, language=language, paper=paper)


def _title(wording: Wording, language: Language, generator: np.random.Generator) -> str:
    word, place = wording.word(language, generator), wording.place(language, generator)
    if language == "ko":
        return choose((f"{place} {word} 보고서", f"{word} 안내문", f"{place} {word} 조사 결과"), generator)
    name = word.title()
    return choose((f"Report on {name}", f"{place} {name} Survey", f"Notice: {name}"), generator)


def _value(name: str, wording: Wording, language: Language, generator: np.random.Generator) -> str:
    if name == "date":
        return date(language, generator)
    if name == "number":
        return code(generator)
    if name == "author":
        return choose(_NAMES[language], generator)
    return wording.place(language, generator) if name == "place" else telephone(generator)
