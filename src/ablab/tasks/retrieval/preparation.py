"""The prepare stage of retrieval: from the section `data` to `ablab.data.pairs`, with the facts that audits ask for."""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ablab.contract.context import Context
from ablab.contract.failure import DataError, StopRequested
from ablab.contract.order import Input
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.contract.seeds import stream_seed
from ablab.data.images import Framing
from ablab.data.m2kr import Passage, Query, both_sides
from ablab.data.pairs import FORMAT, MANIFEST, SPLITS, Pairs, Pictures, write_rows
from ablab.data.tables.roles import bucket_of, question_word
from ablab.data.tokenizers import ByteTokenizer, train_tokenizer
from ablab.store.files import atomic_folder, write_json
from ablab.store.inputs import prepared_artifacts
from ablab.tasks.retrieval.sections import Data
from ablab.tasks.retrieval.sources import Source, open_source

#: Folder of the pairs below a prepare run's artifacts, and of what the generated set's files are.
FOLDER, GENERATED = "pairs", "generated"
TOKENIZER = "tokenizer.json"
#: Bytes of decoded images that are kept without being asked to.
_KEPT = 1 << 30


@dataclass(kw_only=True)
class Found:
    """What was read, while it is put together."""

    passages: dict[str, Passage] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    pools: dict[str, set[int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def whole(self, query: Query) -> Query:
        """Return the query with what the pools know of its positives: M2KR's tables name them by id and text alone."""
        known = [self.passages.get(passage.id, passage) for passage in query.positives]
        whole = [
            replace(own, text=own.text or pooled.text, image=own.image or pooled.image)
            for own, pooled in zip(query.positives, known, strict=True)
        ]
        return replace(query, positives=tuple(whole))

    def add(self, passage: Passage) -> int | None:
        """Take in a passage and return its row; None where only its id is known, here and elsewhere."""
        known = self.passages.get(passage.id)
        if known is None:
            if passage.empty:
                self.counts["positives of unknown content"] += 1
                return None
            self.passages[passage.id] = passage
            return self.rows.setdefault(passage.id, len(self.rows))
        if passage.text is not None and known.text is not None and passage.text != known.text:
            self.counts["passages with two texts"] += 1
        if (known.text is None and passage.text is not None) or (known.image is None and passage.image is not None):
            self.passages[passage.id] = Passage(
                id=known.id, text=known.text or passage.text, image=known.image or passage.image
            )
        return self.rows[passage.id]


def prepare(data: Data, context: Context) -> Outcome:
    """Write the pairs below the run's artifacts, unless an earlier attempt has finished them.

    Raises:
        DataError: a damaged row (named), a missing or broken image, no train queries.
        StopRequested: a stop was asked for; nothing half-written stays.
    """
    target = context.artifacts / FOLDER
    if not target.exists():
        source = open_source(
            data,
            folder=context.order.study_folder,
            revisions=context.order.revisions,
            generated=context.artifacts / GENERATED,
        )
        with atomic_folder(target) as folder:
            _write(data, source, folder, context)
    return _outcome(Pairs(target))


def open_pairs(inputs: Iterable[Input]) -> Pairs:
    """Return the prepared pairs among a stage's inputs, or behind them.

    Raises:
        ConfigError: there are none, or several.
    """
    return Pairs(prepared_artifacts(inputs) / FOLDER)


def _write(data: Data, source: Source, folder: Path, context: Context) -> None:
    found, names = Found(), _Names()
    for split, read in source.passages.items():
        found.pools[split] = {row for passage in _watched(read(), context) if (row := found.add(passage)) is not None}
    facts: dict[str, Any] = {}
    asked: dict[str, list[dict[str, Any]]] = {}
    for split, queries in _divided(data, source, found, context).items():
        rows = list(_query_rows(queries, found, names, split))
        if split == "train" and data.rows is not None:
            rows = _drawn(rows, data.rows, strata=data.strata, seed=data.seed)
        write_rows(folder / f"queries-{split}", rows)
        asked[split] = rows
        facts |= _facts_of(split, rows, found)
    if not facts.get("queries.train"):
        raise DataError(_nothing_left(data, found))
    facts |= _overlap(asked)
    write_rows(folder / "passages", (_passage_row(passage, names) for passage in found.passages.values()))
    for split in SPLITS:
        np.save(folder / f"pool-{split}.npy", np.array(sorted(found.pools.get(split, ())), dtype=np.int64))
        facts[f"passages.{split}"] = len(found.pools.get(split, ()))
    facts["passages.known"] = len(found.passages)
    for name in ("text", "image"):
        facts[f"passages.without_{name}"] = sum(getattr(each, name) is None for each in found.passages.values())
    (folder / "images.json").write_text(json.dumps(list(names.rows)), encoding="utf-8")
    manifest = {
        "format": FORMAT,
        "kind": "pairs",
        "source": source.record,
        "images": {"count": len(names.rows), "size": data.image_size, "source": source.images},
        "tokenizer": data.tokenizer.name,
        "facts": facts | {"images": len(names.rows)} | {f"data.{name}": n for name, n in sorted(found.counts.items())},
    }
    write_json(folder / MANIFEST, manifest)
    _keep_images(folder, data, names, source, context)
    _write_tokenizer(folder, data)


class _Names:
    """Numbers of image names, in the order they were first seen."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}

    def of(self, name: str | None) -> int | None:
        return None if name is None else self.rows.setdefault(name, len(self.rows))


def _nothing_left(data: Data, found: Found) -> str:
    """Return why no train query is left."""
    lacking = found.counts["train queries without text and image on both sides, left out"]
    if not data.both_sides or not lacking:
        return "the train split holds no query with a positive; correct data.queries or its filters"
    images = sum(passage.image is not None for passage in found.passages.values())
    return (
        f"data.both_sides: none of {lacking} train queries has text and image on both sides; of {len(found.passages)} "
        f"passages in the pools {images} have an image; take a source whose passages have images, or both_sides: false"
    )


def _divided(data: Data, source: Source, found: Found, context: Context) -> dict[str, Iterator[Query]]:
    """Return the queries of each split; validation is divided off train where the source has none."""

    def reader(split: str) -> Iterator[Query]:
        return _kept(data, _watched(source.queries[split](), context), found, split)

    def part(low: float, high: float, split: str) -> Iterator[Query]:
        queries = _watched(source.queries["train"](), context)
        return _kept(data, (q for q in queries if low <= _place(q, data.seed) < high), found, split)

    if "train" not in source.queries:
        raise DataError("the source has no train split; name its files in data.queries.train")
    if "val" in source.queries or data.validation == 0:
        return {split: reader(split) for split in SPLITS if split in source.queries}
    divided = {"train": part(data.validation, math.inf, "train"), "val": part(0.0, data.validation, "val")}
    return divided | {split: reader(split) for split in ("test",) if split in source.queries}


def _place(query: Query, seed: int) -> float:
    """Return where a query falls when train is divided: by its image, so that one image is not on both sides."""
    return stream_seed(seed, f"split/{query.image or query.text}") / 2**63


def _kept(data: Data, queries: Iterator[Query], found: Found, split: str) -> Iterator[Query]:
    """Yield the queries that count: with `both_sides` those that are complete, their own fields and the pools' taken
    together."""
    for query in queries:
        kept = both_sides(found.whole(query)) if data.both_sides else query
        if kept is None:
            found.counts[f"{split} queries without text and image on both sides, left out"] += 1
        else:
            yield kept


def _watched(rows: Iterator[Any], context: Context) -> Iterator[Any]:
    """Yield the rows, and look now and then whether to stop."""
    for count, row in enumerate(rows):
        if count % 1024 == 0 and context.stop_requested():
            raise StopRequested("stopped while preparing data; it starts again from the beginning")
        yield row


def _query_rows(queries: Iterator[Query], found: Found, names: _Names, split: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a split; a query of train without a positive is left out and counted."""
    given = found.pools.get(split)
    pool = set(given or ())
    for query in queries:
        positives = [row for passage in query.positives if (row := found.add(passage)) is not None]
        if split == "train" and not positives:
            found.counts["train queries without positive, left out"] += 1
            continue
        if given is None:
            pool.update(positives)
        for name in ("question", "instruction", "image"):
            found.counts[f"missing.{split}.{name}"] += getattr(query, name) is None
        found.counts[f"missing.{split}.answers"] += not query.answers
        yield {
            "id": query.id,
            "text": query.text,
            "question": query.question,
            "image": names.of(query.image),
            "answers": list(query.answers),
            "positives": positives,
            "kind": query.kind,
        }
    found.pools[split] = pool


def _passage_row(passage: Passage, names: _Names) -> dict[str, Any]:
    return {"id": passage.id, "text": passage.text, "image": names.of(passage.image)}


def _drawn(rows: list[dict[str, Any]], count: int, *, strata: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Return `count` rows in their order, evenly from each stratum, as far as they reach.

    Rows are drawn by their ids: a row's luck does not depend on the others.
    """
    if count >= len(rows):
        return rows
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(tuple(_STRATA[name](row) for name in strata), []).append(index)
    found: list[int] = []
    # The smallest first: what a stratum cannot give is shared by those still to come.
    waiting = sorted(groups.values(), key=len)
    for done, group in enumerate(waiting):
        share = round((count - len(found)) / (len(waiting) - done))
        luck = {index: stream_seed(seed, f"rows/{rows[index]['id']}") for index in group}
        found += heapq.nsmallest(share, group, key=luck.__getitem__)
    return [rows[index] for index in sorted(found)]


#: What rows can be told apart by.
_STRATA: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "candidates": lambda row: bucket_of(len(row["positives"])),
    "question-word": lambda row: question_word(row["question"] or ""),
    "image": lambda row: row["image"] is None,
    "kind": lambda row: row["kind"],
}


def _overlap(asked: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return how many test queries are train queries too, and the share that is about a positive of train queries."""
    test = asked.get("test", [])
    questions = {_question(row) for row in asked["train"]}
    known = {positive for row in asked["train"] for positive in row["positives"]}
    return {
        "overlap.test_in_train": sum(_question(row) in questions for row in test),
        "overlap.test_positives_in_train": sum(not known.isdisjoint(row["positives"]) for row in test)
        / max(1, len(test)),
    }


def _question(row: Mapping[str, Any]) -> str:
    """Return what makes two queries the same: question and image."""
    return json.dumps([row["question"], row["image"]], ensure_ascii=False)


def _facts_of(split: str, rows: list[dict[str, Any]], found: Found) -> dict[str, Any]:
    """Return counts of a split: queries, distinct positives, how likely two queries share one, what no pool holds."""
    shares: defaultdict[int, float] = defaultdict(float)
    for row in rows:
        for positive in row["positives"]:
            shares[positive] += 1.0 / len(row["positives"])
    pool = found.pools.get(split, set())
    return {
        f"queries.{split}": len(rows),
        f"positives.distinct.{split}": len(shares),
        f"positives.collision.{split}": _collision(rows, shares),
        f"positives.outside_pool.{split}": sum(not pool.intersection(row["positives"]) for row in rows),
        f"kinds.{split}": dict(Counter(row["kind"] for row in rows if row["kind"] is not None)),
        f"queries.twice.{split}": len(rows) - len({_question(row) for row in rows}),
    }


def _collision(rows: list[dict[str, Any]], shares: Mapping[int, float]) -> float:
    """Return the chance that two different queries draw the same positive; `shares` sums 1 / positives by passage."""
    own = sum(1.0 / len(row["positives"]) for row in rows if row["positives"])
    return (sum(share**2 for share in shares.values()) - own) / max(1, len(rows) * (len(rows) - 1))


def _keep_images(folder: Path, data: Data, names: _Names, source: Source, context: Context) -> None:
    """Decode all images once where they take little room, and at least look whether each is there."""
    size = len(names.rows) * 3 * data.image_size**2
    keep = data.cache_images if data.cache_images is not None else 0 < size <= _KEPT
    pictures = Pictures(
        list(names.rows), kept=None, source=source.images, framing=Framing(size=data.image_size, aspect="crop")
    )
    if not keep:
        _find_images(pictures, context)
    if not keep or not len(pictures):
        return
    shape = (len(pictures), 3, data.image_size, data.image_size)
    kept = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    with ThreadPoolExecutor(2) as pool:
        for row, pixels in enumerate(pool.map(pictures.load, range(len(pictures)))):
            kept[row] = pixels
            if row % 256 == 0:
                context.progress(row, len(pictures), unit="images")
                if context.stop_requested():
                    raise StopRequested("stopped while preparing images; it starts again from the beginning")
    kept.flush()


def _find_images(pictures: Pictures, context: Context) -> None:
    """Look whether every image is there: hours later, a missing one would stop a training run.

    Raises:
        DataError: some are missing; the first of them and how many are named.
    """
    missing = [name for name in _watched(iter(pictures.names), context) if name not in pictures]
    if missing:
        raise DataError(
            f"{missing[0]}: no such image in data.images, one of {len(missing)} missing of {len(pictures)}; get them, "
            "or write null where a row has none",
            file=missing[0],
        )


def _write_tokenizer(folder: Path, data: Data) -> None:
    """Train or write the tokenizer, on the texts of the train split alone."""
    if data.tokenizer.name == "towers":
        return
    pairs = Pairs(folder)
    queries = (row["text"] for row in pairs.queries("train"))
    passages = (pairs.passages[int(row)]["text"] for row in pairs.pool("train"))
    if data.tokenizer.vocabulary is None:
        text = ByteTokenizer().to_json()
    else:
        texts = (text for part in (queries, passages) for text in part if text is not None)
        text = train_tokenizer(texts, vocabulary=data.tokenizer.vocabulary, threads=1).to_json()
    (folder / TOKENIZER).write_text(text, encoding="utf-8")


def _outcome(pairs: Pairs) -> Outcome:
    """Return the manifest's facts, and a table by split."""
    facts = dict(pairs.manifest["facts"])
    columns = ("split", "queries", "distinct positives", "queries a positive", "searched passages",
               "queries without positive in the pool")  # fmt: skip
    rows = []
    for split in SPLITS:
        queries, distinct = facts.get(f"queries.{split}", 0), facts.get(f"positives.distinct.{split}", 0)
        ratio = round(queries / distinct, 2) if distinct else math.nan
        outside = facts.get(f"positives.outside_pool.{split}", 0)
        rows.append(
            (split, queries, distinct, None if math.isnan(ratio) else ratio, facts[f"passages.{split}"], outside)
        )
    shown = [(name.partition(".")[2], count) for name, count in facts.items() if name.startswith("data.")]
    tables = [Table(name="queries and passages", columns=columns, rows=tuple(rows))]
    if shown:
        tables.append(Table(name="what is missing", columns=("what", "rows"), rows=tuple(shown)))
    return Outcome(
        facts=facts | {"source": pairs.manifest["source"]},
        artifacts={"pairs": f"artifacts/{FOLDER}"},
        evaluations=(Evaluation(name="data", tables=tuple(tables)),),
    )
