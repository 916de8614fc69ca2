from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ablab.contract.failure import ConfigError, StopRequested
from ablab.contract.order import Input, Order
from ablab.metrics.judging import Endpoint
from ablab.store.layout import RunFolder
from ablab.tasks.vision_language.benchmarks import config, engine, keeping
from ablab.tasks.vision_language.benchmarks.averages import averages
from ablab.tasks.vision_language.benchmarks.catalogue import ENTRIES, find_benchmark
from ablab.tasks.vision_language.benchmarks.config import BenchmarkSettings, BenchmarkSource
from ablab.tasks.vision_language.benchmarks.engine import selection
from tests.metrics.test_judging import TOKEN, Server, says
from tests.tasks.vision_language.benchmarks import official as files
from tests.tasks.vision_language.benchmarks.conftest import Bench


def own(tmp_path: Path, count: int = 10) -> dict[str, str]:
    rows = [{"id": f"q{i}", "text": f"What is {i}?", "answer": str(i), "category": "odd" if i % 2 else "even"}
            for i in range(count)]  # fmt: skip
    files.lines(tmp_path / "q.jsonl", rows)
    return {"questions": "q.jsonl"}


def number(question) -> str:
    return question.id[1:]


def test_metrics_records_and_one_csv_row(bench: Bench, tmp_path: Path) -> None:
    found = bench.ask(lambda one: number(one) if one.id != "q3" else "no idea", {"questions": own(tmp_path)})
    assert found.metrics["Questions"] == 90.0
    assert found.metrics["Questions/odd"] == 80.0 and found.metrics["Questions/even"] == 100.0
    records = [json.loads(line) for line in (bench.context.artifacts / "records" / "questions.jsonl").open()]
    assert records[3] == {
        "id": "q3", "prompt": "What is 3?", "text": "no idea", "answers": ["3"], "scores": {"score": 0.0},
        "group": "odd", "language": "en",
    }  # fmt: skip
    (row,) = csv.DictReader((bench.context.artifacts / "benchmarks.csv").open())
    assert (row["study"], row["experiment"], row["seed"]) == ("tiny", "A1", "7")
    assert float(row["Questions"]) == 90.0
    assert set(found.artifacts.values()) >= {"artifacts/benchmarks.csv", "artifacts/answers/questions.jsonl"}
    for path in found.artifacts.values():
        assert (bench.context.folder / path).is_file()


def test_the_seed_of_a_row_is_that_of_the_weights_it_judges(tmp_path: Path) -> None:
    fields = {"stage": "s", "kind": "train", "task": "t", "study": "t", "profile": "full", "experiment": "A"}
    run = RunFolder(tmp_path / "train-1").create()
    run.write_order(Order(key="1", seed=123, folder=str(run.path), **fields))
    given = Input(reference="train", stage="train", kind="train", key="1", path=str(run.path))
    order = Order(key="2", folder=str(tmp_path), inputs=(given,), **fields)
    assert keeping.seed_of(order) == 123


def test_a_limit_spreads_over_the_benchmark(bench: Bench, tmp_path: Path) -> None:
    bench.ask(number, {"questions": {**own(tmp_path), "limit": 5}})
    (asked,) = bench.asked
    assert [int(name[1:]) // 2 for name in asked] == [0, 1, 2, 3, 4]


def test_a_limit_keeps_step_with_nothing_that_alternates() -> None:
    chosen = selection(600, 300)
    assert chosen == sorted(set(chosen)) == selection(600, 300) and [place // 2 for place in chosen] == list(range(300))
    assert 110 < sum(place % 2 for place in chosen) < 190
    assert selection(3, 5) == selection(3, None) == [0, 1, 2]


def test_a_stopped_evaluation_goes_on_where_it_was_in_the_same_batches(bench: Bench, tmp_path: Path) -> None:
    source = own(tmp_path)
    bench.context.stop_after = 2
    with pytest.raises(StopRequested, match="6 answers are kept"):
        bench.ask(number, {"questions": source}, chunk=3)
    partial = bench.context.artifacts / "partial" / "questions.jsonl"
    partial.write_text("".join(partial.read_text().splitlines(keepends=True)[:-1]) + '{"id": "q5", "te')
    bench.context.stop_after = None
    found = bench.ask(number, {"questions": source}, chunk=3)
    assert bench.asked[2:] == [["q3", "q4", "q5"], ["q6", "q7", "q8"], ["q9"]]
    assert found.metrics["Questions"] == 100.0 and not partial.exists()


def test_kept_answers_to_another_prompt_are_not_taken(bench: Bench, tmp_path: Path) -> None:
    bench.context.stop_after = 1
    with pytest.raises(StopRequested):
        bench.ask(number, {"questions": own(tmp_path)}, chunk=3)
    text = (tmp_path / "q.jsonl").read_text().replace("What is 0?", "What was 0?")
    (tmp_path / "q.jsonl").write_text(text)
    bench.context.stop_after = None
    bench.ask(number, {"questions": {"questions": "q.jsonl"}}, chunk=3)
    assert bench.asked[1] == ["q0", "q1", "q2"]


@pytest.mark.parametrize("answers", [[], ["a"], ["a", None]])
def test_an_answer_left_out_is_an_error_not_an_empty_answer(bench: Bench, tmp_path: Path, answers: list) -> None:
    settings = BenchmarkSettings(benchmarks={"questions": own(tmp_path, 2)})
    with pytest.raises(ConfigError, match="one text each"):
        engine.evaluate_benchmarks(lambda _: answers, settings, bench.context, study_folder=tmp_path)


def test_what_generation_raises_is_raised(bench: Bench, tmp_path: Path) -> None:
    def fail(_):
        raise RuntimeError("out of something")

    with pytest.raises(RuntimeError, match="out of something"):
        bench.ask(fail, {"questions": own(tmp_path)})


def test_failed_judgements_are_missing_and_said(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = files.mmvet(tmp_path)
    judge = {"model": "judge-1", "url": "http://127.0.0.1:9", "attempts": 1}
    found = bench.ask(lambda one: made.answers[one.id], {"mmvet": made.source}, judge=judge)
    assert "MMVet" not in found.metrics and found.facts["benchmark.mmvet.missing"] == 2
    assert sum(found.facts["judge.failures"].values()) == 2
    records = [json.loads(line) for line in (bench.context.artifacts / "records" / "mmvet.jsonl").open()]
    assert [one["scores"] for one in records] == [None, None]

    def half(self, messages, *, read):
        return read("0.6") if "What is x?" in messages[-1]["content"] else None

    monkeypatch.setattr(Endpoint, "ask", half)
    found = bench.ask(lambda one: made.answers[one.id], {"mmvet": made.source}, judge=judge)
    assert found.metrics["MMVet"] == pytest.approx(60.0) and found.facts["benchmark.mmvet.missing"] == 1


def test_without_a_judge_the_number_is_missing_and_the_answers_are_there(bench: Bench, tmp_path: Path) -> None:
    made = files.mmvet(tmp_path)
    found = bench.ask(lambda one: made.answers[one.id], {"mmvet": made.source})
    assert "MMVet" not in found.metrics
    assert json.loads((bench.context.artifacts / "answers" / "mmvet_results.json").read_text()) == made.answers


def test_averages_by_language_and_kind(bench: Bench, tmp_path: Path) -> None:
    korean, english, tables = files.k_dtcbench(tmp_path), files.mmstar(tmp_path), files.wtq(tmp_path)
    right = korean.answers | tables.answers

    def answer(one):
        return right.get(one.id, "A")

    sources = {made.key: made.source for made in (korean, english, tables)}
    found = bench.ask(answer, sources).metrics
    assert found["MMStar"] == 50.0
    assert found["average/korean"] == 100.0
    assert found["average/english"] == 75.0
    assert found["average/structured"] == 100.0
    assert found["average/overall"] == pytest.approx(250 / 3)


def test_an_average_of_fewer_benchmarks_is_no_average() -> None:
    means, missing = averages({"a": (50.0, ("english",)), "b": (None, ("english",)), "c": (10.0, ("korean",))})
    assert means == {"average/korean": 10.0}
    assert missing == {"english": "no number of b", "overall": "no number of b"}


def test_shown_examples_have_pictures_targets_and_scores(bench: Bench, tmp_path: Path) -> None:
    made = files.gqa(tmp_path)
    found = bench.ask(lambda one: made.answers[one.id], {"gqa": made.source}, shown=1)
    (shown,) = next(one for one in found.evaluations if one.name == "GQA").examples
    assert (shown.output, shown.target, shown.scores) == ("Yes.", "yes", {"score": 1.0})
    assert (bench.context.folder / shown.images[0]).is_file()
    table = found.evaluations[0].tables[0]
    assert ("GQA", 100.0, 2, 0) in table.rows


def test_two_sets_of_one_benchmark_are_two_numbers(bench: Bench, tmp_path: Path) -> None:
    own(tmp_path)
    sources = {
        "train-questions": {"benchmark": "questions", "questions": "q.jsonl"},
        "questions": {"questions": "q.jsonl"},
    }
    found = bench.ask(number, sources).metrics
    assert found["train-questions"] == found["Questions"] == 100.0


def test_a_benchmark_of_ones_own(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Question, percentages\n"
        "def read(files):\n"
        "    for i, line in enumerate(files.questions.read_text().split()):\n"
        "        yield Question(id=str(i), prompt=line, answers=(line[::-1],))\n"
        "def mark(question, text):\n"
        "    return {'score': float(text == question.answers[0])}\n"
        "def Backwards():\n"
        "    return Benchmark(title='Backwards', read=read, mark=mark, combine=percentages)\n"
    )
    (tmp_path / "words.txt").write_text("abc def")
    source = {"benchmark": "mine.py:Backwards", "questions": "words.txt"}
    found = bench.ask(lambda one: one.prompt[::-1], {"Backwards": source})
    assert found.metrics["Backwards"] == 100.0
    settings = BenchmarkSettings(benchmarks={"Backwards": source})
    assert config.files(settings) == ["mine.py"] and config.yields(settings) is None


def test_names_are_checked_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="did you mean textvqa"):
        BenchmarkSettings(benchmarks={"textva": {"questions": "x"}})
    with pytest.raises(ConfigError, match="did you mean gqa"):
        find_benchmark("gpqa")
    with pytest.raises(ValidationError, match="either `questions`"):
        BenchmarkSource()
    with pytest.raises(ValidationError, match="either `questions`"):
        BenchmarkSource(questions="x", hub="a/b")


def test_what_an_evaluation_reads_and_yields_is_declared() -> None:
    sources = {
        "gqa": {"questions": "gqa/q.json", "images": "gqa/images"},
        "k-dtcbench": {"hub": "NCSOFT/K-DTCBench", "split": "test"},
    }
    settings = BenchmarkSettings(benchmarks=sources)
    found = [(one.kind, one.name, one.path) for one in config.references(settings)]
    assert found == [
        ("file", "gqa/q.json", "evaluate.benchmarks.gqa.questions"),
        ("folder", "gqa/images", "evaluate.benchmarks.gqa.images"),
        ("hub", "NCSOFT/K-DTCBench", "evaluate.benchmarks.k-dtcbench.hub"),
    ]
    assert config.yields(settings) == ("GQA", "GQA/*", "K-DTCBench", "K-DTCBench/*", "average/*")


def test_benchmarks_without_a_train_split_are_known() -> None:
    assert not ENTRIES["k-dtcbench"].train and not ENTRIES["mathvista"].train and ENTRIES["docvqa"].train


def test_a_benchmark_may_limit_the_length_of_its_answers(bench: Bench, tmp_path: Path) -> None:
    limits = []
    bench.ask(
        lambda one: str(limits.append(one.max_new_tokens)), {"questions": {**own(tmp_path, 2), "max_new_tokens": 5}}
    )
    assert limits == [5, 5]


def test_a_judge_is_asked_once_and_its_token_is_kept_nowhere(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", TOKEN)
    made, server = files.llava_w(tmp_path), Server()
    try:
        server.reply = lambda _, body: (
            200,
            says("8 6\nfair" if "Describe" in body["messages"][1]["content"] else "9 9"),
        )
        judge = {"model": "judge-1", "url": server.url, "token_variable": "JUDGE_TOKEN"}
        for _ in range(2):
            found = bench.ask(lambda one: made.answers[one.id], {"llava-w": made.source}, judge=judge)
            assert found.metrics["LLaVA-W"] == pytest.approx(100 * (9 + 6) / (9 + 8))
        assert len(server.requests) == 2  # the second time every judgement is known
        assert server.headers[0]["Authorization"] == f"Bearer {TOKEN}"
    finally:
        server.close()
    assert found.facts["benchmark.llava-w.marked_by"] == "judge judge-1"
    for path in bench.context.folder.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()
    assert TOKEN not in found.model_dump_json()
