"""The index stage: the vectors of a pool on disk, exact or compressed with what that loses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ablab.contract.context import Context
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.models.retriever import Retriever
from ablab.models.search import Index as StoredIndex
from ablab.models.search import IndexWriter, compress, open_index, state_loss
from ablab.tasks.retrieval.config import Index
from ablab.tasks.retrieval.evaluation import Questions
from ablab.tasks.retrieval.searching import encode_pool, encode_queries

if TYPE_CHECKING:
    from ablab.tasks.retrieval.task import Retrieval

FOLDER, EXACT = "index", "exact"


def index(code: Retrieval, model: Retriever, parameters: Index, context: Context) -> Outcome:
    """Write the index of a split's pool below the run's artifacts; a compressed one beside the exact one it is of."""
    questions = Questions(code.pairs, parameters.split)
    exact = parameters.form == "exact"
    first = context.artifacts / (FOLDER if exact else EXACT)
    facts: dict[str, Any] = {"split": parameters.split}
    with IndexWriter(first, facts=facts) as writer:
        for vectors in encode_pool(model, code.items, questions.pool, batch=parameters.batch, context=context):
            writer.add(vectors)
    made = open_index(first)
    rows: list[tuple[Any, ...]] = [("exact", made.bytes, made.bytes / made.passages, 1.0, 1.0)]
    found: dict[str, Any] = {"index.passages": made.passages, "index.bytes": made.bytes}
    if not exact:
        assert parameters.form != "exact"
        small = compress(made, context.artifacts / FOLDER, kind=parameters.form, bits=parameters.bits)
        found |= _loss(code, model, parameters, questions, small, made, context)
        row = (parameters.form, small.bytes, small.bytes / small.passages)
        rows.append((*row, found["index.overlap@10"], found["index.first"]))
    columns = ("index", "bytes", "bytes a passage", "of the exact best 10", "same first passage")
    return Outcome(
        facts=found,
        artifacts={"index": f"artifacts/{FOLDER}/index.json"},
        evaluations=(Evaluation(name="index", tables=(Table(name="index", columns=columns, rows=tuple(rows)),)),),
    )


def _loss(
    code: Retrieval,
    model: Retriever,
    parameters: Index,
    questions: Questions,
    small: StoredIndex,
    exact: StoredIndex,
    context: Context,
) -> dict[str, Any]:
    """Return what a compressed index loses, for queries spread over the split."""
    chosen = np.linspace(0, len(questions.rows) - 1, min(parameters.loss_queries, len(questions.rows))).astype(int)
    rows = [questions.rows[row] for row in chosen]
    queries = encode_queries(model, code.items, rows, batch=parameters.batch, context=context)
    loss = state_loss(small, exact, queries.cpu(), k=min(10, exact.passages))
    return {
        "index.bytes": small.bytes,
        "index.share": loss.bytes,
        "index.overlap@10": loss.overlap,
        "index.first": loss.first,
        "index.score_error": loss.score_error,
    }
