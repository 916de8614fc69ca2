"""The bm25 stage: BM25 over the texts of a pool, scored as a retriever is."""

from __future__ import annotations

import torch

from ablab.contract.context import Context
from ablab.contract.order import Order
from ablab.contract.result import Outcome
from ablab.models.bm25 import bm25_run
from ablab.models.search import Found
from ablab.tasks.retrieval.config import Bm25
from ablab.tasks.retrieval.evaluation import Questions, outcome
from ablab.tasks.retrieval.preparation import open_pairs


def run(order: Order, context: Context) -> Outcome:
    """Search a pool's texts by the words of the questions."""
    context.event("start", step=0)
    parameters = Bm25.model_validate(order.parameters)
    pairs = open_pairs(order.inputs)
    questions = Questions(pairs, parameters.split)
    asked = [row["text"] if parameters.instruction else row["question"] for row in questions.rows]
    with context.time("validation"):
        ids, scores = bm25_run(
            list(questions.texts(pairs)),
            [text or "" for text in asked],
            min(len(questions.pool), max(*parameters.cutoffs, parameters.depth, 100)),
            k1=parameters.k1,
            b=parameters.b,
        )
        found = Found(ids=torch.from_numpy(ids), scores=torch.from_numpy(scores))
        return outcome(questions, found, parameters, pairs=pairs, folder=context.folder)
