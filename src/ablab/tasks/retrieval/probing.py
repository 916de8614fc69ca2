"""The probe stage: what a trained retriever relies on, by taking text or image away from queries or passages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ablab.contract.context import Context
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.metrics.ranking import hit, relevance
from ablab.models.retriever import Retriever
from ablab.tasks.retrieval.config import Probe
from ablab.tasks.retrieval.evaluation import Questions
from ablab.tasks.retrieval.searching import Change, Row, encode_pool, encode_queries, search_exactly

if TYPE_CHECKING:
    from ablab.tasks.retrieval.task import Retrieval


def without(*fields: str) -> Change:
    """Return a change that takes fields away from a row, as if they had been missing in the data."""

    def change(row: Row) -> Row:
        return {**row, **dict.fromkeys(fields)}

    return change


#: What is taken away, by the name it has in the metrics.
CHANGES: dict[str, tuple[Change | None, Change | None]] = {
    "whole": (None, None),
    "query-without-image": (without("image"), None),
    "query-without-text": (without("text"), None),
    "passage-without-image": (None, without("image")),
    "passage-without-text": (None, without("text")),
    "query-empty": (without("image", "text"), None),
}


def probe(code: Retrieval, model: Retriever, parameters: Probe, context: Context) -> Outcome:
    """Return the hit rate over the whole pool with each part taken away."""
    questions = Questions(code.pairs, parameters.split)
    k = min(parameters.cutoff, len(questions.pool))
    values: dict[str, float] = {}
    rows: list[tuple[Any, ...]] = []
    for name, (of_query, of_passage) in CHANGES.items():
        options: dict[str, Any] = {"batch": parameters.batch, "context": context}
        queries = encode_queries(model, code.items, questions.rows, change=of_query, **options)
        passages = encode_pool(model, code.items, questions.pool, change=of_passage, **options)
        found = search_exactly(queries, passages, k=k)
        rate = float(hit(relevance(found.ids.numpy(), questions.positives), k).mean())
        values[f"probe/{name}/hit_at_{parameters.cutoff}"] = rate
        rows.append((name, rate))
    rows.append(("chance", questions.chance(k)))
    table = Table(name="what is relied on", columns=("what is seen", f"hit@{k}"), rows=tuple(rows))
    return Outcome(metrics=values, evaluations=(Evaluation(name="probe", tables=(table,)),))
