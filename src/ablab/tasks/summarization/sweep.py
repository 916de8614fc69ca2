"""Sweep decodings on the validation split: one model, generated with every combination, the best one passed on.

The model is not trained again. A stage that needs a sweep takes the decoding it chose (`ablab.generation.choice`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from torch import nn

from ablab.contract.context import Context
from ablab.contract.decoding import Decoding
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.metrics.rouge import CorpusRouge, Scorer
from ablab.tasks.summarization.evaluation import summaries
from ablab.tasks.summarization.scoring import NAMES, open_tokenizer, percent

if TYPE_CHECKING:
    from ablab.tasks.summarization.config import DecodeSweep
    from ablab.tasks.summarization.task import Summarization


def decode_sweep(code: Summarization, model: nn.Module, parameters: DecodeSweep, context: Context) -> Outcome:
    """Return the decoding with the best score on the split, and what every other one reached.

    Of equal scores the first in the sweep's order wins. Combinations that differ only in what they do not use (a
    length penalty without beams) are generated once.

    Raises:
        DataError: a row of the split has no reference.
        StopRequested: a stop was asked for.
    """
    rows = code.prepared.rows(parameters.split)[: parameters.dialogues]
    encoded = code.encoded(parameters.split)[: parameters.dialogues]
    rouge, order = parameters.rouge, context.order
    tokenizer = open_tokenizer(rouge.tokenizer, folder=order.study_folder, threads=context.numerics.threads)
    scorer = Scorer([row.summaries for row in rows], tokenizer=tokenizer, aggregate=rouge.references)
    known: dict[Decoding, tuple[CorpusRouge, float, float]] = {}
    tried: list[tuple[Decoding, CorpusRouge, float, float]] = []
    for decoding in parameters.decodings():
        effective = decoding.effective
        if effective not in known:
            began = time.perf_counter()
            outputs = summaries(
                code, model, encoded, effective, context, batch=parameters.batch, tokens=parameters.batch_tokens
            )
            seconds = time.perf_counter() - began
            corpus = scorer.corpus([code.encoder.decode(ids) for ids in outputs], resamples=rouge.samples)
            known[effective] = (corpus, sum(map(len, outputs)) / max(len(outputs), 1), seconds)
        tried.append((decoding, *known[effective]))
    best = max(range(len(tried)), key=lambda place: _value(tried[place][1], parameters.metric))
    chosen = tried[best][0]
    scores = {f"{parameters.split}/{NAMES[name]}": percent(name, tried[best][1].means[name].value) for name in NAMES}
    return Outcome(
        metrics=scores,
        facts={
            "chosen": chosen.model_dump(),
            "tried": [
                {"decoding": decoding.model_dump(), "score": _value(corpus, parameters.metric)}
                for decoding, corpus, _, _ in tried
            ],
            "evaluation.dialogues": len(rows),
        },
        evaluations=(Evaluation(name="decodings", tables=(_table(parameters, tried, best),)),),
    )


def _value(corpus: CorpusRouge, metric: str) -> float:
    name = next(name for name, told in NAMES.items() if told == metric)
    return percent(name, corpus.means[name].value)


def _table(parameters: DecodeSweep, tried: list[tuple[Decoding, CorpusRouge, float, float]], best: int) -> Table:
    swept = tuple(parameters.sweep)
    rows: list[tuple[Any, ...]] = []
    for place, (decoding, corpus, length, seconds) in enumerate(tried):
        values = tuple(getattr(decoding, name) for name in swept)
        scores = tuple(percent(name, corpus.means[name].value) for name in NAMES)
        score = corpus.means["competition"]
        rows.append((*values, *scores, score.low, score.high, length, seconds, place == best))
    return Table(
        name="decodings",
        columns=(*swept, *NAMES.values(), "score low", "score high", "length", "seconds", "chosen"),
        rows=tuple(rows),
        units={"length": "tokens", "seconds": "s"},
    )
