"""Both file forms of M2KR, as queries and passages: flat JSONL of nine fields, and the hub's parquet tables.

Flat: answer, data_id, dataset_id, image_path, instruction, passage_id, passage_image_path, passage_text, question;
`passage_*` are lists or scalars. Hub: `<Task>_data` (question_id, question, instruction, img_path, pos_item_ids,
pos_item_contents, answers, ...) and `<Task>_passages` (passage_id, passage_content, img_path). Which rows may be told
apart from damage:

    missing value       null, NaN, "NA" or an empty text, in any field
    answer              no answers: the query counts as zero in pseudo-recall
    data_id             file and row
    instruction         the question alone; without question, the instruction alone
    image_path          no image
    passage_id          a digest of the passage's content
    passage_text/image  that side is missing; a passage with neither must be in the pool, by id
    everything          a query with neither text nor image, or a row that is no object: DataError with file and row
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablab.data.documents import corrupt, nearest_fields
from ablab.data.readers.opening import format_suffix
from ablab.data.readers.records import read_jsonl, read_parquet

#: The nine fields of a flat row.
FIELDS = (
    "answer", "data_id", "dataset_id", "image_path", "instruction", "passage_id", "passage_image_path",
    "passage_text", "question",
)  # fmt: skip
#: Texts that stand for a missing value.
MISSING = frozenset({"", "NA"})
#: Fields by which a parquet or JSONL row is known to be of the hub's form.
_HUB_FIELDS = ("question_id", "pos_item_ids", "pos_item_contents", "img_path")
_ROWS = 1024
#: Half of a surrogate pair, which JSON can spell and no file in UTF-8 can hold.
_LONE = re.compile("[\ud800-\udfff]")

Row = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """What may be found. `text` and `image` are None where they are missing."""

    id: str
    text: str | None
    image: str | None

    @property
    def empty(self) -> bool:
        """Whether nothing but its id is known."""
        return self.text is None and self.image is None


@dataclass(frozen=True, kw_only=True)
class Query:
    """A question with its positives, as the row has them. `kind` is the hub's question_type, where it has one."""

    id: str
    instruction: str | None
    question: str | None
    image: str | None
    answers: tuple[str, ...]
    positives: tuple[Passage, ...]
    kind: str | None = None

    @property
    def text(self) -> str | None:
        """Instruction and question, what the text tower reads; None where both are missing."""
        given = [part for part in (self.instruction, self.question) if part is not None]
        return " ".join(given) or None


def read_queries(path: str | os.PathLike[str]) -> Iterator[Query]:
    """Yield the queries of a JSONL or parquet file of either form.

    Raises:
        DataError: a missing or damaged file, or a row that is neither form; names file and row.
    """
    unit = _unit(path)
    for row, values in read_rows(path):
        yield query_of(values, file=str(path), row=row, unit=unit)


def read_passages(path: str | os.PathLike[str]) -> Iterator[Passage]:
    """Yield the passages of a pool of either form.

    Raises:
        DataError: as `read_queries`; also a passage with neither text nor image.
    """
    unit = _unit(path)
    for row, values in read_rows(path):
        yield passage_of(values, file=str(path), row=row, unit=unit)


def query_of(values: Mapping[str, Any], *, file: str, row: int, unit: str = "row") -> Query:
    """Return the query of a row of either form. Raises DataError as `read_queries`."""
    if any(name in values for name in _HUB_FIELDS):
        query = _hub_query(values, file=file, row=row, unit=unit)
    elif any(name in values for name in ("question", "instruction", "image_path")):
        query = _flat_query(values, file=file, row=row, unit=unit)
    else:
        corrupt(
            file,
            row,
            f"no query of M2KR: {nearest_fields('question', values)}; expected the nine fields {', '.join(FIELDS)}, or "
            f"the hub's {', '.join(_HUB_FIELDS)}",
            "name a file of queries",
            unit=unit,
        )
    if query.text is None and query.image is None:
        corrupt(file, row, "a query with neither text nor image", unit=unit)
    return query


def passage_of(values: Mapping[str, Any], *, file: str, row: int, unit: str = "row") -> Passage:
    """Return the passage of a row of either form. Raises DataError as `read_passages`."""
    names = ("passage_text", "passage_content", "passage_image_path", "img_path", "passage_id")
    if not any(name in values for name in names):
        corrupt(
            file,
            row,
            f"no passage of M2KR: {nearest_fields('passage_id', values)}",
            "name a file of passages",
            unit=unit,
        )
    text = next((values[name] for name in names[:2] if name in values), None)
    image = next((values[name] for name in names[2:4] if name in values), None)
    found = _passages(values.get("passage_id"), text, image, file=file, row=row, unit=unit)
    if len(found) != 1 or found[0].empty:
        corrupt(file, row, f"expected one passage with text or image, found {len(found)}", unit=unit)
    return found[0]


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Yield (number from 1, row) of a JSONL (.gz, .xz, .bz2 too) or parquet file.

    Raises:
        DataError: the file is missing or damaged, or a line is no JSON object.
    """
    parquet = format_suffix(path) == ".parquet"
    records = read_parquet(Path(path), batch=_ROWS) if parquet else read_jsonl(Path(path))
    for record in records:
        yield record.row, record.values


def _unit(path: str | os.PathLike[str]) -> str:
    return "row" if format_suffix(path) == ".parquet" else "line"


def _flat_query(values: Mapping[str, Any], *, file: str, row: int, unit: str) -> Query:
    ids, texts, images = (values.get(name) for name in ("passage_id", "passage_text", "passage_image_path"))
    return Query(
        id=_text(values.get("data_id"), file, row, unit) or f"{Path(file).name}:{row}",
        instruction=_text(values.get("instruction"), file, row, unit),
        question=_text(values.get("question"), file, row, unit),
        image=_text(values.get("image_path"), file, row, unit),
        answers=_answers(values.get("answer"), file, row, unit),
        positives=_passages(ids, texts, images, file=file, row=row, unit=unit),
    )


def _hub_query(values: Mapping[str, Any], *, file: str, row: int, unit: str) -> Query:
    image = next((values[name] for name in ("img_path", "image_path") if not is_missing(values.get(name))), None)
    return Query(
        id=_text(values.get("question_id"), file, row, unit) or f"{Path(file).name}:{row}",
        instruction=_text(values.get("instruction"), file, row, unit),
        question=_text(values.get("question"), file, row, unit),
        image=_text(image, file, row, unit),
        answers=_answers(values.get("answers"), file, row, unit),
        positives=_passages(
            values.get("pos_item_ids"), values.get("pos_item_contents"), None, file=file, row=row, unit=unit
        ),
        kind=_text(values.get("question_type"), file, row, unit),
    )


def _passages(ids: Any, texts: Any, images: Any, *, file: str, row: int, unit: str) -> tuple[Passage, ...]:
    """Return the passages of parallel lists or scalars; a column that is missing counts as a list of missing values.

    Entries of which nothing is known, not even an id, are left out; a passage named twice is taken once.
    """
    lists = [_as_list(value) for value in (ids, texts, images)]
    lengths = {len(values) for values in lists if values}
    if len(lengths) > 1:
        sizes = ", ".join(
            f"{len(values)} of {name}" for values, name in zip(lists, ("ids", "texts", "images"), strict=True)
        )
        corrupt(file, row, f"the passage lists differ in length: {sizes}", unit=unit)
    length = max(lengths, default=0)
    columns = [[_text(value, file, row, unit) for value in values] or [None] * length for values in lists]
    found: dict[str, Passage] = {}
    for name, text, image in zip(*columns, strict=True):
        if name is None and text is None and image is None:
            continue
        name = name if name is not None else content_id(text, image)
        found.setdefault(name, Passage(id=name, text=text, image=image))
    return tuple(found.values())


def content_id(text: str | None, image: str | None) -> str:
    """Return an id made of a passage's content, for passages that come without one."""
    content = json.dumps([text, image], ensure_ascii=False).encode("utf-8", "surrogatepass")
    return f"content-{hashlib.blake2b(content, digest_size=10).hexdigest()}"


def is_missing(value: Any) -> bool:
    """Whether a value stands for a missing one: null, NaN, "NA" or an empty text."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    return isinstance(value, str) and value.strip() in MISSING


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return [] if is_missing(value) else [value]


def _text(value: Any, file: str, row: int, unit: str) -> str | None:
    """Return a scalar as text; None where it is missing. Ids may be numbers."""
    if is_missing(value):
        return None
    if isinstance(value, str):
        if not value.isascii() and _LONE.search(value):
            corrupt(file, row, f"a text with half a character ({ascii(value)[:40]})", unit=unit)
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(int(value)) if value == int(value) else str(value)
    corrupt(file, row, f"a {type(value).__name__} ({str(value)[:40]}), expected a text", unit=unit)


def _answers(value: Any, file: str, row: int, unit: str) -> tuple[str, ...]:
    """Return the answers; InfoSeek's may be objects, whose plain values count."""
    found: list[str] = []
    for each in _as_list(value):
        parts: Iterable[Any] = each.values() if isinstance(each, dict) else [each]
        found += [
            text
            for part in parts
            if not isinstance(part, dict)
            for p in _as_list(part)
            if (text := _text(p, file, row, unit)) is not None
        ]
    return tuple(dict.fromkeys(found))


def both_sides(query: Query) -> Query | None:
    """Return the query with those of its positives that have text and image; None where it or all of them lack one."""
    complete = tuple(passage for passage in query.positives if passage.text is not None and passage.image is not None)
    if query.question is None or query.image is None or not complete:
        return None
    return replace(query, positives=complete)
