"""The adapter to lmms-eval, on stand-ins with the interface of lmms-eval 0.7.3."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from ablab.contract.failure import ConfigError, DataError
from ablab.tasks.vision_language.benchmarks.config import BenchmarkSettings, LmmsEval, yields
from ablab.tasks.vision_language.benchmarks.lmms_eval import evaluate_with_lmms_eval, outcome
from tests.tasks.vision_language.benchmarks.conftest import Bench


class Lmms:
    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}


class TaskManager:
    def __init__(self, verbosity: str, include_path: str | None = None) -> None:
        self.all_tasks, self.folder = ["tiny"], include_path


def simple_evaluate(model: Any, tasks: list[str], limit: int | None, **_: Any) -> dict[str, Any]:
    assert isinstance(model, Lmms)
    colours = ["red", "blue", "lime"][:limit]
    model.task_dict["tiny"] = {"test": [{"image": Image.new("RGB", (4, 4), colour)} for colour in colours]}
    requests = [
        SimpleNamespace(args=(f"<image>Which? {i}", {"until": ["\n"]}, lambda doc: [doc["image"]], i, "tiny", "test"))
        for i in range(len(colours))
    ]
    said = model.generate_until(requests)
    right = sum(one == colour for one, colour in zip(said, colours, strict=True))
    return {"results": {"tiny": {"alias": "tiny", "exact_match,none": right / len(colours), "submission,none": None}}}


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, members in {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.evaluator": {"simple_evaluate": simple_evaluate},
        "lmms_eval.tasks": {"TaskManager": TaskManager},
    }.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)


COLOURS = {(255, 0, 0): "red\nand more", (0, 0, 255): "blue", (0, 255, 0): "green"}


def answer(question: Any) -> str:
    assert question.prompt.startswith("Which?")
    return COLOURS[question.images[0].open().getpixel((0, 0))]


def test_its_tasks_are_asked_of_our_model(library: None) -> None:
    sizes: list[int] = []

    def generate(questions):
        sizes.append(len(questions))
        return [answer(one) for one in questions]

    found = evaluate_with_lmms_eval(generate, LmmsEval(tasks=("tiny",)), chunk=2)
    assert found.metrics == {"lmms-eval/tiny/exact_match": pytest.approx(2 / 3)}
    assert sizes == [2, 1]


def test_it_stands_beside_our_own_scores(library: None, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"id": "a", "text": "Say x", "answer": "x"}')
    found = bench.ask(
        lambda one: "x" if one.id == "a" else answer(one),
        {"questions": {"questions": "q.jsonl"}},
        lmms_eval={"tasks": ["tiny"]},
    )
    assert found.metrics["Questions"] == 100.0
    assert found.metrics["lmms-eval/tiny/exact_match"] == pytest.approx(2 / 3)
    assert "lmms-eval/*" in (yields(BenchmarkSettings(lmms_eval=LmmsEval(tasks=("tiny",)))) or ())


def test_an_unknown_task_and_a_failure_are_named(library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no task 'huge'"):
        evaluate_with_lmms_eval(lambda _: [], LmmsEval(tasks=("huge",)), chunk=2)
    with pytest.raises(ConfigError, match="3 questions gave 0"):
        evaluate_with_lmms_eval(lambda _: [], LmmsEval(tasks=("tiny",)), chunk=8)

    def fail(**_: Any) -> None:
        raise OSError("no such host")

    monkeypatch.setattr(sys.modules["lmms_eval.evaluator"], "simple_evaluate", fail)
    with pytest.raises(DataError, match="OSError: no such host"):
        evaluate_with_lmms_eval(lambda _: [], LmmsEval(tasks=("tiny",)), chunk=2)


def test_where_it_is_missing_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    with pytest.raises(ConfigError, match="pip install lmms-eval"):
        evaluate_with_lmms_eval(lambda _: [], LmmsEval(tasks=("tiny",)), chunk=2)


def test_only_numbers_become_metrics() -> None:
    results = {"gqa": {"exact_match,flexible": 0.5, "exact_match_stderr,none": 0.1, "alias": "gqa", "done": True}}
    assert outcome({"results": results}).metrics == {"lmms-eval/gqa/exact_match/flexible": 0.5}
    assert outcome({}).metrics == {}
