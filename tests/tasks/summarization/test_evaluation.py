"""Scores, predictions and submission of an evaluation, and of the baselines no model may lose to."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.failure import ConfigError, StopRequested
from ablab.contract.order import Input
from ablab.data.dialogues import Dialogue, turns
from ablab.metrics.text_tokens import tokenizer_for
from ablab.tasks.summarization import baselines
from ablab.tasks.summarization.config import Baseline, Evaluate, Rouge
from ablab.tasks.summarization.scoring import open_tokenizer, score, shown
from ablab.tasks.summarization.task import Summarization

Make = Callable[..., Summarization]
WORDS = {"tokenizer": "words", "samples": 20}


def by_rouge_score(prediction: str, references: list[str], name: str) -> dict[str, float]:
    """The published implementation, with our tokenizer, mean over references."""
    from rouge_score import rouge_scorer

    class Tokens:
        tokenize = staticmethod(tokenizer_for(name))

    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Tokens())
    found = [scorer.score(reference, prediction) for reference in references]
    return {key: 100 * sum(each[key].fmeasure for each in found) / len(found) for key in found[0]}


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "artifacts" / "predictions.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", ["bart", "llama"])
def test_an_evaluation_leaves_scores_that_can_be_checked(make: Make, context: Any, name: str) -> None:
    code = make(name)
    model = code.model(seed=1)
    parameters = Evaluate(split="test", decoding={"max_new_tokens": 6}, rouge={**WORDS, "also": ["characters"]})
    outcome = code.evaluate(model, parameters, context)
    rows = code.prepared.rows("test")
    lines = read_predictions(context.folder)
    assert [line["id"] for line in lines] == [row.id for row in rows]
    for line in lines:
        expected = by_rouge_score(line["prediction"], line["references"], "words")
        for key, value in expected.items():
            assert line["scores"][key] == pytest.approx(value, abs=1e-9)
    for key in ("rouge1", "rouge2", "rougeL"):
        mean = sum(line["scores"][key] for line in lines) / len(lines)
        assert outcome.metrics[f"test/{key}"] == pytest.approx(mean)
    three = [outcome.metrics[f"test/{key}"] for key in ("rouge1", "rouge2", "rougeL")]
    assert outcome.metrics["test/score"] == pytest.approx(sum(three) / 3)
    assert {"test/rouge1_characters", "test/score_characters"} <= set(outcome.metrics)
    with (context.folder / "artifacts" / "submission.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["fname", "summary"], *[[line["id"], line["prediction"]] for line in lines]]
    (evaluation,) = outcome.evaluations
    points = [line["scores"]["score"] for line in lines]
    told = [example.scores["score"] for example in evaluation.examples]
    assert told[:3] == pytest.approx(sorted(points)[:3]) and told[3] == pytest.approx(max(points))
    assert {table.name for table in evaluation.tables} >= {"truncation"}
    assert outcome.artifacts.keys() == {"predictions", "submission"}


def test_what_a_model_writes_does_not_depend_on_the_batch(
    make: Make, contexts: Callable[..., Any], tmp_path: Path
) -> None:
    code = make("mt5")
    model = code.model(seed=1)
    found = []
    for batch in (1, 5):
        context = contexts(tmp_path / str(batch))
        code.evaluate(model, Evaluate(split="val", decoding={"max_new_tokens": 5}, rouge=WORDS, batch=batch), context)
        found.append([line["prediction"] for line in read_predictions(context.folder)])
    assert found[0] == found[1]


def test_a_split_that_is_handed_in_is_summarised_without_scores(
    make: Make, context: Any, prepared: Input, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "with-submission"
    shutil.copytree(prepared.path, folder)
    place = folder / "artifacts" / "dialogues"
    manifest = json.loads((place / "manifest.json").read_text("utf-8"))
    (place / "manifest.json").write_text(json.dumps({**manifest, "splits": [*manifest["splits"], "submission"]}))
    row = {"id": "t1", "dialogue": "#Person1#: Hi", "summaries": [], "topic": "", "file": "", "row": 1}
    (place / "submission.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    code = make()
    code._inputs = (prepared.model_copy(update={"path": str(folder)}),)
    model = code.model(seed=1)
    outcome = code.evaluate(model, Evaluate(decoding={"max_new_tokens": 4}, rouge=WORDS), context)
    with (context.folder / "artifacts" / "submission.csv").open(encoding="utf-8", newline="") as file:
        assert [line[0] for line in csv.reader(file)] == ["fname", "t1"]
    assert outcome.metrics["test/score"] >= 0
    alone = code.evaluate(model, Evaluate(split="submission", decoding={"max_new_tokens": 4}), context)
    assert alone.metrics == {} and read_predictions(context.folder)[0].keys() == {"id", "prediction", "references"}


def test_a_stop_is_heard(make: Make, context: Any) -> None:
    code = make()
    context.stop = True
    with pytest.raises(StopRequested):
        code.evaluate(code.model(seed=1), Evaluate(rouge=WORDS), context)


def test_an_empty_summary_scores_zero_and_is_counted() -> None:
    rows = [Dialogue(id=str(i), dialogue="a", summaries=("hello world",)) for i in range(2)]
    scored = score(rows, ["", "hello world"], Rouge(**WORDS), folder=None, threads=1)
    assert scored.metrics["rouge1"] == 50.0 and scored.metrics["empty"] == 0.5 and scored.metrics["length"] == 1.0
    assert scored.corpus.rows[0]["competition"] == 0.0
    evaluation = shown(rows, ["", "hello world"], scored, name="x", examples=3)
    assert [example.id for example in evaluation.examples] == ["worst: 0", "worst: 1"]


def test_several_references_by_mean_or_max() -> None:
    rows = [Dialogue(id="1", dialogue="a", summaries=("hello world", "something else"))]
    mean = score(rows, ["hello world"], Rouge(**WORDS), folder=None, threads=1)
    best = score(rows, ["hello world"], Rouge(**WORDS, references="max"), folder=None, threads=1)
    assert (mean.metrics["rouge1"], best.metrics["rouge1"]) == (50.0, 100.0)


def test_a_tokenizer_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def halves(text: str) -> list[str]:\n    return text.split('|')\n")
    assert open_tokenizer("mine.py:halves", folder=str(tmp_path))("a|b") == ["a", "b"]
    with pytest.raises(ConfigError, match="no tokenizer 'nothing'"):
        open_tokenizer("nothing", folder=None)


def test_baselines_quote_the_dialogue(prepared: Input, contexts: Callable[..., Any], tmp_path: Path) -> None:
    code = Summarization({}, inputs=[prepared])
    rows = code.prepared.rows("test")
    for method, expected in (("lead", lambda text: "\n".join(turns(text)[:2])), ("copy", lambda text: text)):
        parameters = Baseline(method=method, turns=2, rouge=WORDS)
        context = contexts(tmp_path / method, kind="baseline", inputs=(prepared,), parameters=parameters.model_dump())
        outcome = baselines.run(context.order, context)
        lines = read_predictions(context.folder)
        assert [line["prediction"] for line in lines] == [expected(row.dialogue) for row in rows]
        assert outcome.metrics["test/empty"] == 0
        assert outcome.metrics["test/rouge1"] == pytest.approx(
            sum(by_rouge_score(p["prediction"], p["references"], "words")["rouge1"] for p in lines) / len(lines)
        )
