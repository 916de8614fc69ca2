"""The index stage: the vectors of a pool on disk, exact or compressed with what that loses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ablab.contract.context import Context
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.models.retriever import Retriever
from ablab.models.search import Found, IndexWriter, compress, open_index, search, state_loss
from ablab.models.search import Index as StoredIndex
from ablab.models.search.loss import Loss, compare
from ablab.tasks.retrieval.config import Index
from ablab.tasks.retrieval.evaluation import Questions
from ablab.tasks.retrieval.searching import encode_pool, encode_queries, search_exactly

if TYPE_CHECKING:
    from ablab.tasks.retrieval.task import Retrieval

FOLDER, EXACT = "index", "exact"
#: Passages a ranking is compared over.
_DEPTH = 10


def index(code: Retrieval, model: Retriever, parameters: Index, context: Context) -> Outcome:
    """Write the index of a split's pool below the run's artifacts; a compressed one beside the exact one it is of."""
    questions = Questions(code.pairs, parameters.split)
    compressed = parameters.form != "exact"
    states = compressed or parameters.precision != "fp32"
    asked = _queries(code, model, parameters, questions, context) if states else None
    first = context.artifacts / (EXACT if compressed else FOLDER)
    with IndexWriter(first, dtype=parameters.precision, facts={"split": parameters.split}) as writer:
        vectors = encode_pool(model, code.items, questions.pool, batch=parameters.batch, context=context)
        whole = _write(vectors, writer, asked if parameters.precision != "fp32" else None)
    made = open_index(first)
    losses = [(f"exact, {parameters.precision}", made, _rounding(made, asked, whole))]
    if parameters.form != "exact":
        assert asked is not None
        small = compress(made, context.artifacts / FOLDER, kind=parameters.form, bits=parameters.bits)
        losses.append((parameters.form, small, state_loss(small, made, asked.cpu(), k=min(_DEPTH, made.passages))))
    return _outcome(losses)


def _write(vectors: Iterator[Tensor], writer: IndexWriter, asked: Tensor | None) -> Found | None:
    """Write all vectors; where queries are given, search the vectors as they are encoded too."""
    if asked is None:
        for part in vectors:
            writer.add(part)
        return None

    def written() -> Iterator[Tensor]:
        for part in vectors:
            writer.add(part)
            yield part

    return search_exactly(asked, written(), k=_DEPTH)


def _rounding(made: StoredIndex, asked: Tensor | None, whole: Found | None) -> Loss | None:
    """Return what an exact index loses by the rounding of its vectors; None where they are not rounded."""
    if asked is None or whole is None:
        return None
    exact = Found(ids=whole.ids.cpu(), scores=whole.scores.cpu())
    size = made.bytes / (4 * made.passages * made.vectors * made.width)
    loss = compare(search(made, asked.cpu(), k=_DEPTH), exact, size=size)
    made.note(loss=asdict(loss))
    return loss


def _queries(code: Retrieval, model: Retriever, parameters: Index, questions: Questions, context: Context) -> Tensor:
    """Return the vectors of queries spread over the split, by which a loss is stated."""
    chosen = np.linspace(0, len(questions.rows) - 1, min(parameters.loss_queries, len(questions.rows))).astype(int)
    rows = [questions.rows[row] for row in chosen]
    return encode_queries(model, code.items, rows, batch=parameters.batch, context=context)


def _outcome(losses: list[tuple[str, StoredIndex, Loss | None]]) -> Outcome:
    """Return size and loss of every index made; the facts are those of the last, which is searched."""
    _, last, loss = losses[-1]
    facts: dict[str, Any] = {"index.passages": last.passages, "index.bytes": last.bytes}
    if loss is not None:
        facts |= {
            "index.share": loss.bytes,
            "index.overlap@10": loss.overlap,
            "index.first": loss.first,
            "index.score_error": loss.score_error,
        }
    rows = tuple(
        (name, made.bytes, made.bytes / made.passages, *((1.0, 1.0) if lost is None else (lost.overlap, lost.first)))
        for name, made, lost in losses
    )
    columns = ("index", "bytes", "bytes a passage", "of the exact best 10", "same first passage")
    return Outcome(
        facts=facts,
        artifacts={"index": f"artifacts/{FOLDER}/index.json"},
        evaluations=(Evaluation(name="index", tables=(Table(name="index", columns=columns, rows=rows),)),),
    )
