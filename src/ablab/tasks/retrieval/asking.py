"""The search stage: one query of one's own, a text, an image or both, and the passages a trained model finds for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.data.images import decode
from ablab.models.retriever import Retriever
from ablab.models.search import NOTHING, Found, open_index, search
from ablab.tasks.retrieval.building import input_of
from ablab.tasks.retrieval.config import Ask
from ablab.tasks.retrieval.indexing import FOLDER
from ablab.tasks.retrieval.searching import encode_pool, search_exactly

if TYPE_CHECKING:
    from ablab.tasks.retrieval.task import Retrieval

#: Queries looked at for the instruction that most begin with.
_LOOKED_AT = 200


def ask(code: Retrieval, model: Retriever, parameters: Ask, context: Context) -> Outcome:
    """Return the first passages of a pool for one query, out of an index among the inputs, else as it is encoded.

    Raises:
        ConfigError: neither text nor image is given, the image is not there, or the model does not look at what is.
        DataError: the image cannot be decoded.
    """
    pairs, pool = code.pairs, code.pairs.pool(parameters.split)
    instruction = _instruction(code, parameters) if parameters.instruction is None else parameters.instruction
    query = encode_one(code, model, parameters, instruction=instruction)
    given = input_of(context.order.inputs, "index")
    k = min(parameters.top, len(pool))
    if given is not None:
        index = open_index(Path(given.path, "artifacts", FOLDER))
        if index.passages != len(pool):
            raise ConfigError(
                f"the index {given.reference} holds {index.passages} passages, the pool of {parameters.split} has "
                f"{len(pool)}; search the split that was indexed"
            )
        found = search(index, query, k=k, device=query.device)
    else:
        parts = encode_pool(model, code.items, pool, batch=parameters.batch, context=context)
        found = search_exactly(query, parts, k=k)
    passages = [
        {"rank": place + 1, "score": score, **_told(pairs.passages[int(pool[row])], pairs.pictures.names)}
        for place, (row, score) in enumerate(_places(found))
    ]
    rows = tuple((each["rank"], each["score"], each["id"], each["text"], each["image"]) for each in passages)
    table = Table(name="found", columns=("rank", "score", "id", "text", "image"), rows=rows)
    return Outcome(
        facts={
            "search.found": passages,
            "search.pool": len(pool),
            "search.instruction": instruction,
            "search.indexed": given is not None,
        },
        evaluations=(Evaluation(name="found", tables=(table,)),),
    )


def encode_one(code: Retrieval, model: Retriever, parameters: Ask, *, instruction: str) -> Tensor:
    """Return the vectors of the query, (1, vectors, width)."""
    sees = model.sees["query"]
    if parameters.image is not None and not sees[1]:
        raise ConfigError("this model's queries are text only (model.query); leave out the image")
    if parameters.text is not None and not sees[0]:
        raise ConfigError("this model's queries are images only (model.query); leave out the text")
    text = None if parameters.text is None else " ".join(part for part in (instruction, parameters.text) if part)
    tensors = code.items.tensors([{"text": text, "image": None}], sees=sees)
    if parameters.image is not None:
        path = Path(parameters.image)
        if not path.is_file():
            raise ConfigError(f"{path}: no such image file")
        frame = code.pairs.pictures.framing.frame(decode(path.read_bytes(), name=str(path)))
        tensors["image"] = torch.ones(1)
        tensors["pixels"] = torch.from_numpy(frame)[None]
    device = next(model.parameters()).device
    with torch.no_grad():
        return model.encode("query", {name: value.to(device) for name, value in tensors.items()}).float()


def _instruction(code: Retrieval, parameters: Ask) -> str:
    """Return the instruction that most queries of the split begin with: the model was trained on such texts.

    Those whose question is in the alphabet of the text are asked first.
    """
    rows = code.pairs.queries(parameters.split)
    counts: Counter[tuple[bool, str]] = Counter()
    for place in range(min(_LOOKED_AT, len(rows))):
        row: dict[str, Any] = rows[place]
        if row["text"] and row["question"]:
            alike = row["question"].isascii() == (parameters.text or "").isascii()
            counts[alike, row["text"].removesuffix(row["question"]).strip()] += 1
    return max(counts, key=lambda found: (found[0], counts[found]))[1] if counts else ""


def _places(found: Found) -> list[tuple[int, float]]:
    ids, scores = found.ids[0].tolist(), found.scores[0].tolist()
    return [(row, score) for row, score in zip(ids, scores, strict=True) if row != NOTHING]


def _told(passage: dict[str, Any], names: Any) -> dict[str, Any]:
    image = passage["image"]
    return {"id": passage["id"], "text": passage["text"], "image": None if image is None else names[image]}
