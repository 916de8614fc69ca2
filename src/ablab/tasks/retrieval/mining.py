"""The mine stage: for every train query, the passages that an earlier model ranks highest and that are no positives."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ablab.contract.context import Context
from ablab.contract.failure import DataError
from ablab.contract.order import Input
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.data.pairs import Pairs
from ablab.models.retriever import Retriever
from ablab.store.files import temporary_name
from ablab.tasks.retrieval.config import Mine
from ablab.tasks.retrieval.evaluation import Questions
from ablab.tasks.retrieval.searching import encode_pool, encode_queries, search_exactly

if TYPE_CHECKING:
    from ablab.tasks.retrieval.task import Retrieval

FILE = "negatives.npy"
#: How many times as many passages are looked at as are wanted: some are positives or hold an answer.
_DEEPER = 8


def mine(code: Retrieval, model: Retriever, parameters: Mine, context: Context) -> Outcome:
    """Write `negatives.npy`, rows of the passages, int64 (train queries, negatives); -1 where a query has fewer."""
    questions = Questions(code.pairs, "train")
    vectors = encode_queries(model, code.items, questions.rows, batch=parameters.batch, context=context)
    most = max(len(set(row)) for row in questions.positives)
    k = min(len(questions.pool), (parameters.negatives + parameters.skip) * _DEEPER + most)
    passages = encode_pool(model, code.items, questions.pool, batch=parameters.batch, context=context)
    ranking = search_exactly(vectors, passages, k=k).ids.numpy()
    texts, alike = questions.texts(code.pairs), twins(code.pairs, questions.pool)
    rows = [
        choose(places, with_twins(positives, alike), answers if parameters.answers else (), texts, parameters)
        for places, positives, answers in zip(ranking, questions.positives, questions.answers, strict=True)
    ]
    found = np.full((len(rows), parameters.negatives), -1, dtype=np.int64)
    for place, row in enumerate(rows):
        found[place, : len(row)] = questions.pool[row]
    target = context.artifacts / FILE
    temporary = temporary_name(target)
    with temporary.open("wb") as file:
        np.save(file, found)
    temporary.replace(target)
    missing = int((found < 0).sum())
    facts: dict[str, Any] = {"mined.queries": len(found), "mined.negatives": int((found >= 0).sum())}
    table = Table(name="mined negatives", columns=("what", "count"), rows=(*facts.items(), ("missing", missing)))
    return Outcome(
        facts=facts | {"mined.missing": missing},
        artifacts={"negatives": f"artifacts/{FILE}"},
        evaluations=(Evaluation(name="negatives", tables=(table,)),),
    )


def twins(pairs: Pairs, pool: npt.NDArray[np.int64]) -> dict[int, list[int]]:
    """Return, for each place of a pool whose text and image stand there under several ids, all of their places."""
    found: defaultdict[bytes, list[int]] = defaultdict(list)
    for place, row in enumerate(pool):
        passage = pairs.passages[int(row)]
        content = json.dumps([passage["text"], passage["image"]]).encode()
        found[hashlib.blake2b(content, digest_size=16).digest()].append(place)
    return {place: places for places in found.values() if len(places) > 1 for place in places}


def with_twins(positives: Iterable[int], alike: Mapping[int, list[int]]) -> set[int]:
    """Return positives and whatever says the same under another id."""
    return {other for place in positives for other in alike.get(place, [place])}


def choose(
    places: npt.NDArray[np.int64],
    positives: set[int],
    answers: Sequence[str],
    texts: Sequence[str],
    parameters: Mine,
) -> list[int]:
    """Return the hardest places of one query that are no positives and hold none of its answers."""
    needles = [needle for answer in answers if (needle := answer.strip().lower())]
    found: list[int] = []
    skipped = 0
    for place in places.tolist():
        if place < 0 or place in positives:
            continue
        if needles and any(needle in texts[place].lower() for needle in needles):
            continue
        if skipped < parameters.skip:
            skipped += 1
            continue
        found.append(place)
        if len(found) == parameters.negatives:
            break
    return found


def read_negatives(given: Input) -> npt.NDArray[np.int64]:
    """Return what a mine stage wrote. Raises DataError when it is missing or damaged."""
    path = Path(given.path, "artifacts", FILE)
    try:
        found: npt.NDArray[np.int64] = np.load(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); mine again", file=str(path)) from error
    return found
