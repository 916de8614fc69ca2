"""Counts over rows that add up: a tally of each part of a file, merged into one of the whole.

Rows come in batches and are counted field by field, so that the interpreter runs once a batch where nothing is missing
and once a row only where something is. What must be told apart (ids, questions, passages) is kept as 64-bit hashes,
8 bytes each; everything else is a count.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from operator import and_, itemgetter
from typing import Any

from ablab.data.m2kr import MISSING, is_missing
from ablab.data.tables.roles import BUCKETS, Roles, as_list, bucket_of, count_of, missing_items, question_words

#: Types of values, and ways of being missing, as fields are counted.
TYPES = ("text", "number", "boolean", "object", "list")
NULL, NA, EMPTY_TEXT, EMPTY_LIST, ALL_ENTRIES = MISSING_WAYS = (
    "null", '"NA"', "empty text", "empty list", "all entries missing",
)  # fmt: skip
#: What is kept as hashes.
HASHED = ("rows", "ids", "questions", "passages")
_BATCH = 1024
_NAMES: dict[type, str] = {int: "number", float: "number", bool: "boolean", dict: "object"}
#: Stands for a field that a row does not have.
_ABSENT = type("Absent", (), {})()

Column = Sequence[Any]


@dataclass(kw_only=True)
class FieldTally:
    """One field over all rows; `counts` by type and way of being missing, rows without the field are in neither."""

    counts: Counter[str] = field(default_factory=Counter)
    entries: int = 0
    entries_missing: int = 0
    some_missing: int = 0

    @property
    def present(self) -> int:
        """Rows that have the field."""
        ways = sum(self.counts[way] for way in MISSING_WAYS if way != ALL_ENTRIES)
        return sum(self.counts[name] for name in TYPES) + ways

    def add(self, values: Column) -> None:
        """Take in the values of some rows."""
        kinds = set(map(type, values))
        for kind in kinds:
            several = values if len(kinds) == 1 else [value for value in values if type(value) is kind]
            if kind is str:
                self._add_texts(several)
            elif kind is list or kind is tuple:
                self._add_lists(several)
            elif kind is not type(_ABSENT):
                missing = sum(map(is_missing, several))
                self.counts[NULL] += missing
                self.counts[_NAMES.get(kind, "object")] += len(several) - missing

    def _add_texts(self, texts: Column) -> None:
        missing = [] if MISSING.isdisjoint(map(str.strip, texts)) else [t for t in texts if t.strip() in MISSING]
        empty = sum(not text.strip() for text in missing)
        self.counts[EMPTY_TEXT] += empty
        self.counts[NA] += len(missing) - empty
        self.counts["text"] += len(texts) - len(missing)

    def _add_lists(self, lists: Column) -> None:
        lengths = list(map(len, lists))
        empty = lengths.count(0)
        self.counts[EMPTY_LIST] += empty
        self.counts["list"] += len(lists) - empty
        self.entries += sum(lengths)
        if complete(chain.from_iterable(lists)):
            return
        for values in lists:
            missing = missing_items(values)
            self.entries_missing += missing
            self.some_missing += missing > 0
            self.counts[ALL_ENTRIES] += 0 < missing == len(values)

    def merge(self, other: FieldTally) -> None:
        """Add another tally of the same field."""
        self.counts.update(other.counts)
        self.entries += other.entries
        self.entries_missing += other.entries_missing
        self.some_missing += other.some_missing


@dataclass(kw_only=True)
class Tally:
    """Everything that is counted over rows.

    Args:
        roles: what fields mean.
        rows, size: rows, and the bytes of their lines.
        fields: by name.
        candidates: rows by exact number of candidates.
        words: rows by question word.
        lengths: by what is measured ("question, words", "passage, characters", "answers"), counts by exact length.
        sides: rows by which of question, image, and any candidate with text, image or both they have.
        hashes: 64-bit hashes of what must be told apart.
    """

    roles: Roles
    rows: int = 0
    size: int = 0
    fields: dict[str, FieldTally] = field(default_factory=dict)
    candidates: Counter[int] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, Counter[int]] = field(default_factory=dict)
    sides: Counter[str] = field(default_factory=Counter)
    hashes: dict[str, array[int]] = field(default_factory=lambda: {name: array("q") for name in HASHED})

    def add(self, rows: Sequence[dict[str, Any]], lines: Sequence[bytes]) -> None:
        """Take in some rows; `lines` are the bytes they were read from, empty where there are none."""
        self.rows += len(rows)
        self.size += sum(map(len, lines))
        shapes = set(map(tuple, rows))
        names = dict.fromkeys(chain.from_iterable(shapes))
        # Where all rows have all fields, they are picked out without asking.
        columns = {
            name: list(map(itemgetter(name), rows)) if len(shapes) == 1 else [row.get(name, _ABSENT) for row in rows]
            for name in names
        }
        for name, values in columns.items():
            self.fields.setdefault(name, FieldTally()).add(values)
        hashable: Iterable[Any] = lines if all(lines) else map(repr, rows)
        self.hashes["rows"].extend(map(hash, hashable))
        if self.roles.answers is not None:
            self.measure("answers", Counter(counts_of(self._column(columns, self.roles.answers, len(rows)))))
        given = {name: self._column(columns, name, len(rows)) for name in self.roles.of_queries}
        asked, seen = (self._column(columns, name, len(rows)) for name in (self.roles.question, self.roles.image))
        query = self.add_queries(given, there(asked), there(seen))
        if self.roles.candidates is not None:
            self._add_passages(columns, len(rows), query)

    def _column(self, columns: dict[str, list[Any]], name: str | None, rows: int) -> Column:
        """Return the values of a role; missing ones where the rows do not have its field."""
        values = columns.get(name) if name is not None else None
        if values is None:
            return [None] * rows
        return [None if value is _ABSENT else value for value in values] if _ABSENT in values else values

    def add_queries(self, columns: Mapping[str, Column], asked: list[bool], seen: list[bool]) -> list[bool]:
        """Count ids, questions and images, and return which rows have question and image.

        Args:
            columns: values of each of these fields that has a role; None where a row has none.
            asked, seen: which rows have a question and an image.
        """
        roles, nothing = self.roles, [None] * len(asked)
        questions, images = (columns[name] if name is not None else nothing for name in (roles.question, roles.image))
        if roles.id is not None:
            ids = columns[roles.id]
            named = ids if complete(ids) else [str(value) for value in ids if not is_missing(value)]
            self.hashes["ids"].extend(map(hash, named))
        texts = as_texts(questions, asked)
        if roles.question is not None or roles.image is not None:
            # None hashes to its address, which differs between processes.
            shown = as_texts(images, seen)
            pairs = zip(
                texts if all(asked) else [text or "" for text in texts],
                shown if all(seen) else [image or "" for image in shown],
                strict=True,
            )
            self.hashes["questions"].extend(map(hash, pairs))
        if roles.question is not None:
            self._add_words(texts if all(asked) else [text for text in texts if text is not None], len(asked))
        query = list(map(and_, asked, seen))
        self.sides["question"] += sum(asked)
        self.sides["image"] += sum(seen)
        self.sides["question and image"] += sum(query)
        return query

    def _add_words(self, texts: Sequence[str], rows: int) -> None:
        """Count the words of questions, which are all that is there in so many rows."""
        pieces = list(map(str.split, texts))
        self.words.update(question_words(texts, pieces))
        lengths = Counter(map(len, pieces))
        without = rows - len(texts)
        if without:
            self.words["none"] += without
            lengths[0] += without
        self.measure("question, words", lengths)

    def _add_passages(self, columns: dict[str, list[Any]], rows: int, query: list[bool]) -> None:
        roles = self.roles
        self.candidates.update(counts_of(self._column(columns, roles.candidates, rows)))
        if roles.passage_ids is not None:
            ids = entries(self._column(columns, roles.passage_ids, rows))
            self.hashes["passages"].extend(map(hash, ids if complete(ids) else map(str, ids)))
        texts = self._column(columns, roles.passage_texts, rows)
        images = self._column(columns, roles.passage_images, rows)
        told = entries(texts)
        whole = complete(told)
        written = told if whole else [text for text in told if isinstance(text, str) and not is_missing(text)]
        self.measure("passage, characters", Counter(map(len, written)))
        has_text, has_image = any_there(texts, whole), any_there(images, complete(entries(images)))
        # Where every candidate has a text, the image decides; a text and an image belong together by their place.
        paired = whole and counts_of(texts) == counts_of(images)
        both = has_image if paired else any_both(texts, images)
        self.sides["a passage with text"] += sum(has_text)
        self.sides["a passage with image"] += sum(has_image)
        self.sides["a passage with both"] += sum(both)
        self.sides["both sides with text and image"] += sum(map(min, both, query))

    def measure(self, name: str, lengths: Mapping[int, int]) -> None:
        """Take in counts by exact length."""
        self.lengths.setdefault(name, Counter()).update(lengths)

    def merge(self, other: Tally) -> None:
        """Add the tally of other rows."""
        self.rows += other.rows
        self.size += other.size
        for name, theirs in other.fields.items():
            self.fields.setdefault(name, FieldTally()).merge(theirs)
        self.candidates.update(other.candidates)
        self.words.update(other.words)
        self.sides.update(other.sides)
        for name, lengths in other.lengths.items():
            self.measure(name, lengths)
        for name, hashes in other.hashes.items():
            self.hashes[name].extend(hashes)

    def ranked_words(self) -> dict[str, int]:
        """Return rows by question word, the most frequent first, equally frequent ones by name."""
        return dict(sorted(self.words.items(), key=lambda item: (-item[1], item[0])))

    def buckets(self) -> dict[str, int]:
        """Return rows by bucket of the number of candidates, in their order."""
        found = {name: 0 for name, _ in BUCKETS}
        for count, rows in self.candidates.items():
            found[bucket_of(count)] += rows
        return found


def complete(values: Iterable[Any]) -> bool:
    """Whether all values are texts and none is missing."""
    try:
        return MISSING.isdisjoint(map(str.strip, values))
    except TypeError:
        return False


def there(values: Column) -> list[bool]:
    """Return which values are not missing; a list is there when any of its entries is."""
    if complete(values):
        return [True] * len(values)
    if list in set(map(type, values)):
        return any_there(values, False)
    return [value is not None and not is_missing(value) for value in values]


def as_texts(values: Column, has: Column) -> Column:
    """Return values as texts; None where they are missing."""
    if all(has) and set(map(type, values)) == {str}:
        return values
    return [str(value) if present else None for value, present in zip(values, has, strict=True)]


def counts_of(values: Column) -> list[int]:
    """Return the number of candidates of each row."""
    return [len(value) if type(value) is list else count_of(value) for value in values]


def entries(values: Column) -> list[Any]:
    """Return the entries of all lists, and the scalars that are not missing."""
    if set(map(type, values)) == {list}:
        return list(chain.from_iterable(values))
    return list(chain.from_iterable(value if type(value) is list else as_list(value) for value in values))


def any_there(values: Column, whole: bool) -> list[bool]:
    """Return which rows have any candidate with a side; `whole` says that no entry is missing."""
    if whole:
        return [count > 0 for count in counts_of(values)]
    return [missing_items(value) < len(value) if type(value) is list else bool(as_list(value)) for value in values]


def any_both(texts: Column, images: Column) -> list[bool]:
    """Return which rows have any candidate with text and image."""
    return [
        any(not is_missing(a) and not is_missing(b) for a, b in zip(as_list(some), as_list(others), strict=False))
        for some, others in zip(texts, images, strict=True)
    ]


def tally_rows(rows: Iterable[tuple[dict[str, Any], bytes]], roles: Roles) -> Tally:
    """Return the tally of rows, counted one by one."""
    tally = Tally(roles=roles)
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH)):
        several, lines = zip(*batch, strict=True)
        tally.add(several, lines)
    return tally


def merged(tallies: Iterator[Tally], roles: Roles) -> Tally:
    """Return the sum of tallies."""
    whole = Tally(roles=roles)
    for tally in tallies:
        whole.merge(tally)
    return whole
