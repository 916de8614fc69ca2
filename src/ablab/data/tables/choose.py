"""Subsets of rows: those that have all that is required, and a draw of equal numbers from each stratum.

Parts of a file are worked on side by side; each writes what it keeps into a file of its own, joined in the order of the
rows. JSONL lines that do not change are copied as they are.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ablab.contract.failure import ConfigError, DataError
from ablab.contract.seeds import stream_seed
from ablab.contract.tables import SIDES, Balance, Fields, Side
from ablab.data.documents import nearest_fields
from ablab.data.m2kr import is_missing
from ablab.data.tables.blocks import Parsed, Parser, blocks_of
from ablab.data.tables.describe import roles_of
from ablab.data.tables.output import Output, line_of
from ablab.data.tables.parts import Part, map_parts, parts_of, rows_of, rows_of_lines
from ablab.data.tables.roles import BUCKETS, Roles, as_list, bucket_of, count_of, question_word

#: What rows that are left out are counted by.
_LACKING = "lacking "
Done = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a filter did.

    Args:
        rows, kept: rows read and written.
        candidates, candidates_kept: candidates of the rows read, and of those written.
        lacking: rows left out by what they lacked first.
    """

    rows: int
    kept: int
    candidates: int
    candidates_kept: int
    lacking: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What passages of a pool have, by hash of their id: bit 1 a text, bit 2 an image."""

    has: Mapping[int, int]

    @classmethod
    def read(cls, files: Sequence[str | os.PathLike[str]]) -> Pool:
        """Read a pool; ids hash alike only within this process."""
        found: dict[int, int] = {}
        for part in parts_of(files):
            for row, _ in rows_of(part):
                text = next((row[name] for name in ("passage_text", "passage_content") if name in row), None)
                image = next((row[name] for name in ("passage_image_path", "img_path") if name in row), None)
                if "passage_id" not in row:
                    known = nearest_fields("passage_id", row)
                    raise DataError(f"{part.path}: a row of the pool has no 'passage_id'; {known}", file=part.path)
                found[hash(str(row["passage_id"]))] = (not is_missing(text)) + 2 * (not is_missing(image))
        return cls(has=found)


def filter_rows(
    files: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    require: Sequence[Side] = SIDES,
    passages: Sequence[str | os.PathLike[str]] = (),
    fields: Fields | None = None,
    processes: int = 1,
    done: Done | None = None,
) -> Kept:
    """Write the rows that have all that is required, and return what was kept.

    A candidate counts where it has every side of a passage that is required; the others are left out of the row.

    Raises:
        DataError: a file is missing or damaged, or no row is left.
        ConfigError: what is required is of no field, or the output is of another format.
    """
    parts = parts_of(files)
    roles = roles_of(parts, fields or Fields())
    pool = Pool.read(passages) if passages else None
    _can_require(require, roles, pool)
    counts: list[Counter[str]] = []
    with Output(output) as target:
        names = [target.part(i) for i in range(len(parts))]
        tasks = [(tuple(require), roles, pool, name) for name in names]
        # A pool is looked up by hashes of this process.
        count = 1 if pool is not None else processes
        for found in map_parts(_filter_part, parts, tasks, processes=count, done=done):
            counts.append(found)
        whole = sum(counts, Counter[str]())
        if not whole["kept"]:
            raise DataError(f"no row of {parts[0].path} has all of {', '.join(require)}", file=parts[0].path)
    return Kept(
        rows=whole["rows"],
        kept=whole["kept"],
        candidates=whole["candidates"],
        candidates_kept=whole["candidates kept"],
        lacking={name: count for name in (*require, _no_candidate(require)) if (count := whole[_LACKING + name])},
    )


def _can_require(require: Sequence[Side], roles: Roles, pool: Pool | None) -> None:
    fields = {
        "question": roles.question,
        "image": roles.image,
        "passage-text": roles.passage_texts or (pool and roles.passage_ids),
        "passage-image": roles.passage_images or (pool and roles.passage_ids),
    }
    for side in require:
        if not fields[side]:
            remedy = "name the pool's files with passages" if side.startswith("passage") else "name its field"
            raise ConfigError(f"{side} is required, but the rows have no field for it; {remedy}, or require less")


def _filter_part(part: Part, task: tuple[tuple[Side, ...], Roles, Pool | None, str]) -> Counter[str]:
    require, roles, pool, name = task
    counts: Counter[str] = Counter()
    with Path(name).open("wb") as out:
        if part.parquet or pool is not None:
            return _filter_rows(rows_of(part), require, roles, pool, out)
        parser = Parser()
        for block in blocks_of(part):
            parsed = parser.parse(block)
            if parsed is None:
                rows = rows_of_lines(part, block.lines, number=block.number)
                counts += _filter_rows(rows, require, roles, pool, out)
            else:
                counts += _filter_block(parsed, require, roles, out)
    return counts


def _filter_block(parsed: Parsed, require: Sequence[Side], roles: Roles, out: BinaryIO) -> Counter[str]:
    """Write the lines of a block that are kept, by its columns; only those that change are parsed."""
    import orjson

    from ablab.data.tables.chosen import select

    found = select(parsed, require, roles)
    stays = found.lacks < 0
    counts = Counter({"rows": len(stays), "kept": int(stays.sum()), "candidates": int(found.candidates.sum())})
    for place, lacking in enumerate((*require, _no_candidate(require))):
        counts[_LACKING + lacking] += int((found.lacks == place).sum())
    kept = found.candidates if found.kept is None else found.kept
    counts["candidates kept"] = 0 if found.kept is None else int(kept[stays].sum())
    lines = parsed.lines
    whole = (kept == found.candidates).tolist()
    for row in np.flatnonzero(stays).tolist():
        line = lines[row]
        changed = {} if whole[row] else _without(orjson.loads(line), found.mask(row), roles)
        out.write(line_of(changed, line if whole[row] else b""))
    return counts


def _no_candidate(require: Sequence[Side]) -> str:
    """Return what a row lacks none of whose candidates has what is required."""
    return " and ".join(side for side in require if side.startswith("passage"))


def _filter_rows(
    rows: Iterable[tuple[dict[str, Any], bytes]],
    require: Sequence[Side],
    roles: Roles,
    pool: Pool | None,
    out: BinaryIO,
) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row, line in rows:
        counts["rows"] += 1
        counts["candidates"] += count_of(row.get(roles.candidates)) if roles.candidates else 0
        lacks: str | None = next((side for side in require if _query_lacks(row, side, roles)), None)
        kept = None if lacks else _candidates(row, require, roles, pool)
        if lacks is None and kept is not None and not kept.any():
            lacks = _no_candidate(require)
        if lacks is not None:
            counts[_LACKING + lacks] += 1
            continue
        counts["kept"] += 1
        counts["candidates kept"] += int(kept.sum()) if kept is not None else 0
        if kept is None or kept.all():
            out.write(line_of(row, line))
        else:
            out.write(line_of(_without(row, kept, roles), b""))
    return counts


def _query_lacks(row: Mapping[str, Any], side: Side, roles: Roles) -> bool:
    name = {"question": roles.question, "image": roles.image}.get(side)
    return name is not None and is_missing(row.get(name))


def _candidates(
    row: Mapping[str, Any], require: Sequence[Side], roles: Roles, pool: Pool | None
) -> npt.NDArray[np.bool_] | None:
    """Return which candidates have what is required; None where nothing is required of them."""
    wanted = [side for side in require if side.startswith("passage")]
    if not wanted or roles.candidates is None:
        return None
    kept = np.ones(count_of(row.get(roles.candidates)), dtype=np.bool_)
    for side in wanted:
        name = roles.passage_texts if side == "passage-text" else roles.passage_images
        if name is not None:
            has = [not is_missing(value) for value in as_list(row.get(name))]
        else:
            assert pool is not None
            bit = 1 if side == "passage-text" else 2
            has = [bool(pool.has.get(hash(str(i)), 0) & bit) for i in as_list(row.get(roles.passage_ids or ""))]
        kept &= np.array(has, dtype=np.bool_) if len(has) == len(kept) else False
    return kept


def _without(row: Mapping[str, Any], kept: npt.NDArray[np.bool_], roles: Roles) -> dict[str, Any]:
    """Return a row with only some of its candidates; a list stays a list."""
    changed = dict(row)
    for name in (roles.passage_ids, roles.passage_texts, roles.passage_images):
        values = row.get(name) if name is not None else None
        if name is not None and isinstance(values, list) and len(values) == len(kept):
            changed[name] = [value for value, stays in zip(values, kept.tolist(), strict=True) if stays]
    return changed


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a balanced draw took: by stratum, rows there are and rows taken."""

    rows: int
    taken: int
    strata: Mapping[str, tuple[int, int]]


def balance(
    parameters: Balance,
    output: str | os.PathLike[str],
    *,
    processes: int = 1,
    done: Done | None = None,
) -> Drawn:
    """Write a subset with equal numbers from each stratum, in the order of the rows, and return what was drawn.

    The stratum of every row is kept as a number (4 bytes a row); rows themselves are never in memory together.

    Raises:
        DataError: a file is missing or damaged.
        ConfigError: a stratum is of no field, more rows are wanted than there are, or the output's format is unknown.
    """
    parts = parts_of(parameters.files)
    roles = roles_of(parts, parameters.fields)
    keys = _keys(parameters.strata, roles, parts)
    names: dict[str, int] = {}
    by_part: list[npt.NDArray[np.int32]] = []
    for labels, numbers in map_parts(_strata_part, parts, [(keys, roles)] * len(parts), processes=processes, done=done):
        known = np.array([names.setdefault(label, len(names)) for label in labels] or [0], dtype=np.int32)
        by_part.append(known[numbers])
    strata = np.concatenate(by_part)
    counts = np.bincount(strata, minlength=len(names))
    quotas = _quotas(parameters, counts, file=parts[0].path)
    chosen = _draw(strata, quotas, seed=parameters.seed)
    with Output(output) as target:
        begins = np.cumsum([0, *map(len, by_part)])
        picks = [chosen[begins[i] : begins[i + 1]] for i in range(len(parts))]
        tasks = [(picks[i], target.part(i)) for i in range(len(parts))]
        for _ in map_parts(_pick_part, parts, tasks, processes=processes, done=done):
            pass
    taken = {name: (int(counts[names[name]]), int(quotas[names[name]])) for name in sorted(names, key=_in_order)}
    return Drawn(rows=len(strata), taken=int(quotas.sum()), strata=taken)


def _keys(strata: Sequence[str], roles: Roles, parts: Sequence[Part]) -> tuple[str, ...]:
    """Check what rows are grouped by: the names with a meaning need their field, the others are fields."""
    needs = {"candidates": roles.candidates, "question-word": roles.question, "image": roles.image}
    known = list(next(rows_of(parts[0]))[0])
    for name in strata:
        if name in needs and needs[name] is None:
            raise ConfigError(f"strata: {name} needs a field that the rows do not have; {nearest_fields(name, known)}")
        if name not in needs and name not in known:
            listed = nearest_fields(name, [*needs, *known])
            raise ConfigError(f"strata: no field {name!r} in {parts[0].path}; {listed.replace('it has', 'there are')}")
    return tuple(strata)


def stratum_of(row: Mapping[str, Any], keys: Sequence[str], roles: Roles) -> str:
    """Return the stratum of a row as a label."""
    labels = []
    for key in keys:
        if key == "candidates":
            labels.append(bucket_of(count_of(row.get(roles.candidates or ""))))
        elif key == "question-word":
            labels.append(question_word(row.get(roles.question or "")))
        elif key == "image":
            labels.append("no image" if is_missing(row.get(roles.image or "")) else "image")
        else:
            value = row.get(key)
            labels.append("missing" if is_missing(value) else str(value))
    return ", ".join(labels)


def _in_order(label: str) -> list[tuple[int, str]]:
    """Return what puts strata into order: buckets by number, the others by name."""
    buckets = [name for name, _ in BUCKETS]
    return [(buckets.index(part) if part in buckets else -1, part) for part in label.split(", ")]


def _strata_part(part: Part, task: tuple[tuple[str, ...], Roles]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Return the labels of a part's strata and the number of each row's."""
    names: dict[str, int] = {}
    numbers = array("i", (names.setdefault(label, len(names)) for label in _labels(part, *task)))
    return list(names), np.frombuffer(numbers, dtype=np.int32).copy() if numbers else np.zeros(0, dtype=np.int32)


def _labels(part: Part, keys: Sequence[str], roles: Roles) -> Iterator[str]:
    """Yield the stratum of every row of a part."""
    from ablab.data.tables.chosen import strata

    if part.parquet:
        yield from (stratum_of(row, keys, roles) for row, _ in rows_of(part))
        return
    parser = Parser(exact=keys)
    for block in blocks_of(part):
        parsed = parser.parse(block)
        if parsed is not None:
            yield from strata(parsed, keys, roles)
        else:
            rows = rows_of_lines(part, block.lines, number=block.number)
            yield from (stratum_of(row, keys, roles) for row, _ in rows)


def _quotas(parameters: Balance, counts: npt.NDArray[np.int64], *, file: str) -> npt.NDArray[np.int64]:
    """Return the rows to draw of each stratum."""
    if parameters.per_stratum is not None:
        return np.minimum(counts, parameters.per_stratum)
    whole = int(counts.sum())
    wanted = parameters.rows if parameters.rows is not None else max(1, round((parameters.share or 0) * whole))
    if wanted > whole:
        raise ConfigError(f"rows: {wanted} are wanted, {file} has {whole}")
    return even_quotas(counts, wanted)


def even_quotas(counts: npt.NDArray[np.int64], wanted: int) -> npt.NDArray[np.int64]:
    """Return numbers that add up to `wanted`, none above its count, as equal as that allows.

    What does not divide goes to the larger strata first.
    """
    quotas = np.zeros_like(counts)
    left, open_strata = wanted, np.flatnonzero(counts > 0)
    while left and len(open_strata):
        each = left // len(open_strata)
        if not each:
            largest = open_strata[np.argsort(-counts[open_strata], kind="stable")][:left]
            quotas[largest] += 1
            break
        more = np.minimum(each, counts[open_strata] - quotas[open_strata])
        quotas[open_strata] += more
        left -= int(more.sum())
        open_strata = open_strata[counts[open_strata] > quotas[open_strata]]
    return quotas


def _draw(strata: npt.NDArray[np.int32], quotas: npt.NDArray[np.int64], *, seed: int) -> npt.NDArray[np.bool_]:
    """Return which rows are drawn, the same for the same seed, rows and strata."""
    random = np.random.default_rng(stream_seed(seed, "balance"))
    order = random.permutation(len(strata))
    mixed = strata[order]
    grouped = np.argsort(mixed, kind="stable")
    begins = np.searchsorted(mixed[grouped], np.arange(len(quotas)))
    place = np.arange(len(strata)) - begins[mixed[grouped]]
    chosen = np.zeros(len(strata), dtype=np.bool_)
    chosen[order[grouped[place < quotas[mixed[grouped]]]]] = True
    return chosen


def _pick_part(part: Part, task: tuple[npt.NDArray[np.bool_], str]) -> None:
    chosen, name = task
    with Path(name).open("wb") as out:
        # Lines have been parsed before, when their strata were seen.
        lines = ((line for line in block.lines if line.strip()) for block in blocks_of(part))
        rows = rows_of(part) if part.parquet else (({}, line) for block in lines for line in block)
        out.writelines(line_of(*row) for row, taken in zip(rows, chosen.tolist(), strict=True) if taken)
