"""A sweep finds what evaluating every decoding by itself finds, generates nothing twice, and is passed on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ablab.contract.order import Input
from ablab.contract.result import Result
from ablab.store.files import write_json
from ablab.tasks.summarization import sweep as sweeping
from ablab.tasks.summarization.config import DecodeSweep, Evaluate
from ablab.tasks.summarization.evaluation import evaluate

ROUGE = {"tokenizer": "characters", "samples": 20}
SWEEP = {"beams": (1, 2), "length_penalty": (0.2, 2.0), "no_repeat_ngram": (0, 1)}


@pytest.fixture
def model(make: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    built = make().model(seed=0)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.5)
    return built.eval()


def test_the_best_of_all_decodings_is_chosen(
    make: Callable[..., Any], model: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = make()
    asked: list[Any] = []
    write = sweeping.summaries

    def counted(code: Any, model: Any, rows: Any, decoding: Any, *given: Any, **named: Any) -> Any:
        asked.append(decoding)
        return write(code, model, rows, decoding, *given, **named)

    monkeypatch.setattr(sweeping, "summaries", counted)
    parameters = DecodeSweep(sweep=SWEEP, decoding={"max_new_tokens": 10}, rouge=ROUGE)
    outcome = code.evaluate(model, parameters, context)
    assert len(asked) == len(set(asked)) == 6, "without beams the penalty does nothing"
    found = [tried["score"] for tried in outcome.facts["tried"]]
    alone = []
    for decoding in parameters.decodings():
        one = evaluate(code, model, Evaluate(split="val", decoding=decoding, rouge=ROUGE), context)
        alone.append(one.metrics["val/score"])
    assert found == pytest.approx(alone)
    assert len({round(score, 6) for score in alone}) > 2, "decodings too alike to choose from"
    best = alone.index(max(alone))
    assert outcome.facts["chosen"] == parameters.decodings()[best].model_dump()
    assert outcome.metrics["val/score"] == pytest.approx(max(alone))
    table = outcome.evaluations[0].tables[0]
    assert [row[-1] for row in table.rows] == [place == best for place in range(8)]
    assert table.columns[:3] == tuple(SWEEP)


def test_a_sweep_may_take_a_part_of_the_split_and_another_score(
    make: Callable[..., Any], model: Any, context: Any
) -> None:
    parameters = DecodeSweep(
        sweep={"no_repeat_ngram": (0, 1)}, decoding={"max_new_tokens": 10}, rouge=ROUGE, dialogues=3, metric="rouge1"
    )
    outcome = make().evaluate(model, parameters, context)
    assert outcome.facts["evaluation.dialogues"] == 3
    scores = [tried["score"] for tried in outcome.facts["tried"]]
    assert outcome.metrics["val/rouge1"] == pytest.approx(max(scores))


def test_the_evaluation_decodes_as_the_sweep_chose(
    make: Callable[..., Any], model: Any, contexts: Callable[..., Any], tmp_path: Path
) -> None:
    chosen = Evaluate(decoding={"beams": 2, "max_new_tokens": 3}).decoding
    folder = tmp_path / "sweep"
    folder.mkdir()
    write_json(folder / "result.json", Result(key="s", facts={"chosen": chosen.model_dump()}).model_dump())
    given = Input(reference="sweep", stage="sweep", kind="decode-sweep", key="s", path=str(folder))
    context = contexts(tmp_path / "stage", inputs=(given,))
    outcome = make().evaluate(model, Evaluate(decoding={"max_new_tokens": 20}, rouge=ROUGE), context)
    assert outcome.facts["evaluation.decoding"] == chosen.model_dump()
