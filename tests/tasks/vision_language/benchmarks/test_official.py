"""Every benchmark from tiny files in its official format: right answers get full marks, wrong ones none."""

from __future__ import annotations

import json

import pytest

from ablab.tasks.vision_language.benchmarks import engine
from ablab.tasks.vision_language.benchmarks.catalogue import ENTRIES, find_benchmark
from ablab.tasks.vision_language.benchmarks.config import METRICS
from tests.tasks.vision_language.benchmarks.conftest import Bench
from tests.tasks.vision_language.benchmarks.official import OFFICIAL, Official


class Judge:
    """Says the same of every answer, and keeps what it was asked."""

    failures: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, says: str) -> None:
        self.says, self.asked = says, []

    def ask(self, messages, *, read):
        self.asked.append("\n".join(message["content"] for message in messages))
        return read(self.says)


@pytest.fixture
def judge(official: Official, monkeypatch: pytest.MonkeyPatch) -> Judge:
    made = Judge(str(official.extra.get("judge", "")))
    monkeypatch.setattr(engine, "open_judge", lambda settings, folder: made if settings is not None else None)
    return made


def test_right_answers_get_full_marks(official: Official, bench: Bench, judge: Judge) -> None:
    settings = {"judge": {"model": "judge-1"}} if ENTRIES[official.key].judged else {}
    found = bench.ask(lambda one: official.answers[one.id], {official.key: official.source}, **settings)
    asked = [name for chunk in bench.asked for name in chunk]
    assert asked == list(dict.fromkeys(asked)) and set(asked) == set(official.answers)
    assert found.metrics[official.metric or ENTRIES[official.key].main] == pytest.approx(official.full)
    assert f"benchmark.{official.key}.missing" not in found.facts
    rows = [json.loads(line) for line in (bench.context.artifacts / "answers" / f"{official.key}.jsonl").open()]
    assert rows == [{"question_id": name, "text": official.answers[name]} for name in asked]


@pytest.mark.parametrize("said", ["", "Platypus?!"])
def test_wrong_and_empty_answers_get_nothing(official: Official, bench: Bench, said: str) -> None:
    found = bench.ask(lambda _: said, {official.key: official.source})
    if ENTRIES[official.key].judged:
        assert not found.metrics  # a judge decides, and there is none
        return
    wanted = 0.0
    if official.key == "pope" and said:
        wanted = 0.5  # anything that does not say no is a yes
    assert found.metrics[official.metric or ENTRIES[official.key].main] == wanted


def test_every_question_has_a_prompt_a_picture_and_an_answer(official: Official, bench: Bench) -> None:
    questions = []

    def answer(one):
        questions.append(one)
        return "x"

    bench.ask(answer, {official.key: official.source})
    for one in questions:
        assert one.prompt.strip() and "<image>" not in one.prompt
        assert len(one.images) >= 1 and one.answers
        assert one.language == ("ko" if ENTRIES[official.key].averages[:1] == ("korean",) or one.id == "b" else "en")
        for choice in one.choices:
            assert choice in one.prompt or official.key in ("mathverse", "questions")


def test_a_benchmark_of_each_catalogue_name_is_tried_here() -> None:
    assert {name.partition("@")[0] for name in OFFICIAL} == set(ENTRIES)


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_the_catalogue_agrees_with_the_code(name: str) -> None:
    entry, benchmark = ENTRIES[name], find_benchmark(name)
    assert benchmark.title == entry.title
    assert benchmark.metric(benchmark.headline) == entry.main
    assert (benchmark.mark is None) == entry.judged
    assert any(metric.name == entry.title for metric in METRICS)


def test_a_judge_is_told_what_the_published_prompts_tell(official: Official, bench: Bench, judge: Judge) -> None:
    if official.key == "mmvet":
        bench.ask(lambda one: official.answers[one.id], {"mmvet": official.source}, judge={"model": "judge-1"})
        assert judge.asked[0].endswith("What is x? | -1 <AND> -5 | x = -1 or -5 |")
        assert "What is x in the equation? | -1 <AND> -5 | x = -1 | 0.5" in judge.asked[0]
    elif official.key == "llava-w":
        bench.ask(lambda one: official.answers[one.id], {"llava-w": official.source}, judge={"model": "judge-1"})
        for part in ("A view of Diamond Head.", "[Assistant 1]\nDiamond Head\n", "[Assistant 2]\nA hill\n", "1 to 10"):
            assert part in judge.asked[1]
    elif official.key == "charxiv":
        bench.ask(lambda one: official.answers[one.id], {"charxiv": official.source}, judge={"model": "judge-1"})
        assert "Ground truth: P56962" in judge.asked[0] and "Which curve?" in judge.asked[0]
    else:
        assert not ENTRIES[official.key].judged
