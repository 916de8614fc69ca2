"""Answers worked out again from the texts that stand in the pictures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ablab.data.rendering.charts import questions as chart_questions
from ablab.data.rendering.documents import document
from ablab.data.rendering.sets import Place, make
from ablab.data.rendering.settings import Rendered
from ablab.data.rendering.tables import Grid, drawn_grid
from ablab.data.rendering.tables import questions as table_questions
from ablab.data.rendering.wording import Language, Wording, date, filled, money, with_particle

PLAIN = Rendered(rows=1, augmentation="none", questions=8)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_texts_of_a_table_are_its_cells_and_answer_its_questions(
    language: Language, fonts: tuple[Path, ...]
) -> None:
    for number in range(15):
        one = make(Place(number=number, kind="table", language=language), PLAIN, fonts)
        cells = [written.text for written in one.written]
        columns = next(i for i, text in enumerate(cells[1:], 1) if text.isdecimal()) - 1
        heads, rows = cells[:columns], np.array(cells[columns:]).reshape(-1, columns)
        for turn in one.turns:
            column = next((i for i, head in enumerate(heads) if i and head in turn.question), None)
            if turn.question in ("How many rows of data does the table have?", "표에는 자료 행이 몇 개 있습니까?"):
                assert turn.answer == str(len(rows))
            if column is None:
                continue
            values = rows[:, column].astype(int)
            if re.search(r"highest|가장 높은", turn.question):
                assert turn.answer == rows[values.argmax(), 0]
            elif re.search(r"lowest|가장 낮은", turn.question):
                assert turn.answer == rows[values.argmin(), 0]
            elif re.search(r"the sum|의 합은", turn.question):
                assert turn.answer == str(values.sum())
            elif found := re.search(r"above (\d+)|이? (\d+)보다 큰|가 (\d+)보다 큰", turn.question):
                bound = int(next(filter(None, found.groups())))
                assert turn.answer == str((values > bound).sum())


def grid() -> Grid:
    return Grid(first="Name", names=("cat", "dog", "owl"), heads=("Price",), numbers=np.array([[5], [9], [5]]))


def test_questions_about_a_table_have_one_true_answer() -> None:
    found: dict[str, str] = {}
    for seed in range(40):
        for turn in table_questions(grid(), "en", np.random.default_rng(seed)):
            assert found.setdefault(turn.question, turn.answer) == turn.answer
    assert found["Which name has the highest Price?"] == "dog"
    assert "Which name has the lowest Price?" not in found  # two have
    assert found["What is the sum of Price?"] == "19"
    assert found["How many rows have a Price above 5?"] == "1"
    assert found["How much larger is the Price of dog than that of cat?"] == "4"
    assert found["Is it true that the Price of dog is 9?"] == "Yes"
    claims = {q: a for q, a in found.items() if q.startswith("Is it true") and not q.endswith(("dog is 9?", "is 5?"))}
    assert claims and set(claims.values()) == {"No"}


def test_the_names_of_a_table_differ(wording: Wording) -> None:
    for seed in range(50):
        made = drawn_grid(wording, "ko", np.random.default_rng(seed))
        assert len(set(made.names)) == len(made.names) and len(set(made.heads)) == len(made.heads)


def test_the_total_of_a_receipt_is_the_sum_of_its_prices(fonts: tuple[Path, ...], wording: Wording) -> None:
    seen = 0
    for seed in range(40):
        for language in ("en", "ko"):
            one = document(wording, fonts, language, np.random.default_rng(seed), 99)
            texts = [written.text for written in one.written]
            if texts[0] not in ("RECEIPT", "영수증"):
                continue
            seen += 1
            amounts = [int(re.sub(r"\D", "", text)) for text in texts if re.fullmatch(r"\$[\d,.]+|[\d,]+원", text)]
            assert sum(amounts[:-1]) == amounts[-1]
            answers = {turn.question: turn.answer for turn in one.turns}
            total = answers.get("What is the total?") or answers["합계는 얼마입니까?"]
            assert total == texts[-1]
            count = answers.get("How many items are on the receipt?") or answers["영수증에는 품목이 몇 개 있습니까?"]
            assert int(count) == len(amounts) - 1
            for question, answer in answers.items():
                item = re.fullmatch(r"What is the price of (.+)\?|(.+)의 가격은 얼마입니까\?", question)
                if item:
                    name = next(filter(None, item.groups()))
                    # From the end: an item may be called what the heading says.
                    assert texts[-1 - texts[::-1].index(name) + 1] == answer
    assert seen > 10


def test_the_answers_about_a_report_stand_in_it(fonts: tuple[Path, ...], wording: Wording) -> None:
    for seed in range(30):
        one = document(wording, fonts, "en", np.random.default_rng(seed), 99)
        text = " ".join(written.text for written in one.written)
        for turn in one.turns:
            if not turn.answer.isdecimal():
                assert turn.answer in text


def test_the_numbers_of_a_chart_stand_in_it(fonts: tuple[Path, ...]) -> None:
    for number in range(4):
        one = make(Place(number=number, kind="chart", language="en"), PLAIN, fonts)
        text = " ".join(written.text for written in one.written)
        for turn in one.turns:
            if turn.question.startswith(("What is the value", "Which", "What is the title")):
                assert re.search(rf"(?<!\w){re.escape(turn.answer)}(?!\w)", text), (turn, text)


def test_questions_about_a_chart() -> None:
    values = np.array([10, 30, 20])
    found = {}
    for seed in range(20):
        turns = chart_questions("bar", ("a", "b", "c"), values, "T", "ko", np.random.default_rng(seed))
        found |= {turn.question: turn.answer for turn in turns}
    assert found["b의 값은 얼마입니까?"] == "30"
    assert found["값이 가장 큰 항목은 무엇입니까?"] == "b" and found["값이 가장 작은 항목은 무엇입니까?"] == "a"
    assert found["모든 값의 합은 얼마입니까?"] == "60" and found["항목은 모두 몇 개입니까?"] == "3"
    assert found["이것은 어떤 종류의 차트입니까?"] == "막대그래프"


@pytest.mark.parametrize(
    ("word", "role", "written"),
    [
        ("사과", "topic", "사과는"),
        ("수박", "topic", "수박은"),
        ("수박", "object", "수박을"),
        ("사과", "and", "사과와"),
        ("곰", "and", "곰과"),
        ("새", "subject", "새가"),
        ("533", "called", "533이라는"),
        ("512", "called", "512라는"),
        ("10", "called", "10이라는"),
        ("cat", "topic", "cat는"),
    ],
)
def test_a_korean_word_takes_the_particle_of_its_last_sound(word: str, role: str, written: str) -> None:
    assert with_particle(word, role) == written
    assert filled("{x:" + role + "} {x}", x=word) == f"{written} {word}"


def test_sentences_are_of_the_bundled_sets_and_within_their_length(wording: Wording) -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        assert "{" not in (korean := wording.sentence("ko", generator)) and korean.endswith(".")
        assert 0 < len(wording.sentence("en", generator, longest=60)) <= 60
    assert len(wording.things) > 500 and len(wording.sentences) > 1000


def test_money_and_dates_are_written_as_the_language_writes_them() -> None:
    assert money("ko", 12500) == "12,500원" and money("en", 123456) == "$1,234.56" and money("en", 7) == "$0.07"
    generator = np.random.default_rng(0)
    for _ in range(50):
        assert re.fullmatch(r"\d{4}(년 \d+월 \d+일|\. \d+\. \d+\.|-\d\d-\d\d)", date("ko", generator))
