"""Evaluate a retriever: all queries of a split over its whole pool, by kind of question, with what was found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError, DataError
from ablab.contract.order import Input
from ablab.contract.result import Evaluation, Example, Outcome, Series, Table
from ablab.data.pairs import Pairs
from ablab.metrics.ranking import NOTHING, hit, means, query_scores, relevance, unanswerable
from ablab.models.retriever import Retriever
from ablab.models.search import Found, open_index, search
from ablab.store.layout import RunFolder
from ablab.tasks.retrieval.building import input_of
from ablab.tasks.retrieval.config import Bm25, Evaluate

if TYPE_CHECKING:
    from ablab.tasks.retrieval.task import Retrieval

#: Passages shown of what was found, and characters of each.
_SHOWN, _CHARACTERS = 3, 160
#: K of the curve of hit rates.
_CURVE = (1, 2, 3, 5, 10, 20, 50, 100)


def evaluate(code: Retrieval, model: Retriever, parameters: Evaluate, context: Context) -> Outcome:
    """Return the scores of a split over its whole pool; from an index among the inputs, else as the pool is encoded."""
    from ablab.tasks.retrieval.searching import encode_pool, encode_queries, search_exactly

    questions = Questions(code.pairs, parameters.split)
    deep = max(*parameters.cutoffs, parameters.depth, *_CURVE)
    k = min(deep, len(questions.pool))
    vectors = encode_queries(model, code.items, questions.rows, batch=parameters.batch, context=context)
    given = input_of(context.order.inputs, "index")
    if given is not None:
        _same_model(given, context.order.inputs)
        index = open_index(Path(given.path, "artifacts", "index"))
        if index.passages != len(questions.pool):
            raise ConfigError(
                f"the index {given.reference} holds {index.passages} passages, the pool of {parameters.split} "
                f"{len(questions.pool)}; index that split"
            )
        found = search(index, vectors, k=k, device=vectors.device)
    else:
        passages = encode_pool(model, code.items, questions.pool, batch=parameters.batch, context=context)
        found = search_exactly(vectors, passages, k=k)
    return outcome(questions, found, parameters, pairs=code.pairs, folder=context.folder)


def _same_model(index: Input, inputs: Sequence[Input]) -> None:
    """Raise ConfigError where an index holds another model's vectors than those of the queries will be."""
    order = RunFolder(index.path).read_order()
    made = {} if order is None else {each.key: each.reference for each in order.inputs if each.kind == "train"}
    asking = {each.key: each.reference for each in inputs if each.kind == "train"}
    if made and asking and not made.keys() & asking.keys():
        raise ConfigError(
            f"the index {index.reference} holds vectors of {', '.join(made.values())}, the queries are those of "
            f"{', '.join(asking.values())}: index with the model that is evaluated"
        )


class Questions:
    """The queries of a split and the pool they are asked of.

    Raises:
        DataError: the split has no queries, or nothing is searched.
    """

    def __init__(self, pairs: Pairs, split: str) -> None:
        self.split = split
        self.rows: list[dict[str, Any]] = list(pairs.queries(split))
        self.pool = pairs.pool(split)
        if not self.rows or not len(self.pool):
            raise DataError(f"the split {split} has {len(self.rows)} queries and {len(self.pool)} passages to search")
        places = {int(row): place for place, row in enumerate(self.pool)}
        #: Places in the pool of each query's positives.
        self.positives = [[places[p] for p in row["positives"] if p in places] for row in self.rows]
        self.answers = [row["answers"] for row in self.rows]
        self.kinds = [row["kind"] for row in self.rows]

    def texts(self, pairs: Pairs) -> Texts:
        """Return the texts of the pool."""
        return Texts(pairs, self.pool)

    def chance(self, k: int) -> float:
        """Return the hit rate at k of a random order: 1 - C(N - R, k) / C(N, k), its mean over the queries."""
        size = len(self.pool)
        missed = [
            math.exp(_log_choose(size - len(set(p)), k) - _log_choose(size, k)) if size - len(set(p)) >= k else 0.0
            for p in self.positives
        ]
        return 1.0 - sum(missed) / len(missed)


class Texts(Sequence[str]):
    """Texts of a pool, read where they are asked for; empty where a passage has none."""

    def __init__(self, pairs: Pairs, pool: npt.NDArray[np.int64]) -> None:
        self._passages, self._pool = pairs.passages, pool

    def __len__(self) -> int:
        return len(self._pool)

    def __getitem__(self, place: Any) -> Any:
        return self._passages[int(self._pool[place])]["text"] or ""


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def outcome(questions: Questions, found: Found, parameters: Evaluate | Bm25, *, pairs: Pairs, folder: Path) -> Outcome:
    """Return scores, by kind of question too, beside chance; and a few queries with what was found."""
    ranking = found.ids.numpy()
    texts = questions.texts(pairs)
    found_scores = query_scores(
        ranking,
        questions.positives,
        cutoffs=[k for k in parameters.cutoffs if k <= ranking.shape[1]],
        depth=parameters.depth,
        texts=texts,
        answers=questions.answers,
    )
    # In the name of a metric, what follows an @ says which checkpoint is meant.
    scores = {name.replace("@", "_at_"): values for name, values in found_scores.items()}
    split = questions.split
    values = {f"{split}/{name}": value for name, value in means(scores).items()}
    rows: list[tuple[Any, ...]] = [("all", len(questions.rows), *means(scores).values())]
    for kind in sorted({kind for kind in questions.kinds if kind is not None}):
        chosen = np.array([each == kind for each in questions.kinds])
        part = means({name: value[chosen] for name, value in scores.items()})
        values |= {f"{split}/{kind}/{name}": value for name, value in part.items()}
        rows.append((kind, int(chosen.sum()), *part.values()))
    chance = {f"chance.hit_at_{k}": questions.chance(min(k, len(questions.pool))) for k in parameters.cutoffs}
    rows.append(("chance", len(questions.rows), *(chance.get(f"chance.{name}") for name in scores)))
    facts = {
        "evaluation.queries": len(questions.rows),
        "evaluation.pool": len(questions.pool),
        "evaluation.unanswerable": unanswerable(questions.positives),
        **{f"evaluation.{name}": value for name, value in chance.items()},
    }
    shown = Evaluation(
        name=f"{split} split",
        tables=(Table(name="scores", columns=("questions", "queries", *scores), rows=tuple(rows)),),
        series=(_curve(ranking, questions),),
        examples=tuple(_examples(questions, ranking, scores, texts, getattr(parameters, "examples", 0))),
    )
    return Outcome(metrics=values, facts=facts, evaluations=(shown,))


def _curve(ranking: npt.NDArray[np.int64], questions: Questions) -> Series:
    relevant = relevance(ranking, questions.positives)
    points = [(float(k), float(hit(relevant, k).mean())) for k in _CURVE if k <= ranking.shape[1]]
    x, y = zip(*points, strict=True) if points else ((), ())
    return Series(name="hit rate by depth", x=x, y=y, x_label="passages looked at", y_label="hit rate")


def _examples(
    questions: Questions,
    ranking: npt.NDArray[np.int64],
    scores: Mapping[str, npt.NDArray[np.float64]],
    texts: Sequence[str],
    count: int,
) -> Iterator[Example]:
    """Yield queries spread over the split: text, what was found first, and what was wanted."""
    for row in np.linspace(0, len(questions.rows) - 1, min(count, len(questions.rows))).astype(int):
        query, places = questions.rows[row], [p for p in ranking[row][:_SHOWN] if p != NOTHING]
        yield Example(
            id=query["id"],
            input=f"{query['text'] or ''}{'' if query['image'] is None else ' [image]'}",
            output=" | ".join(texts[place][:_CHARACTERS] for place in places),
            target=" | ".join(texts[place][:_CHARACTERS] for place in questions.positives[row][:_SHOWN]),
            scores={name: float(value[row]) for name, value in scores.items() if name.startswith(("hit", "mrr"))},
        )
