"""Where queries and passages come from: the generated set, files, the hub, or a reader of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ablab.contract.failure import ConfigError, DataError
from ablab.contract.registry import find_component, is_file_reference
from ablab.contract.task import DataReference
from ablab.data.m2kr import Passage, Query, passage_of, query_of, read_passages, read_queries
from ablab.data.mini_m2kr import parts_of, write_mini_m2kr
from ablab.data.pairs import SPLITS
from ablab.data.readers.hub import HubSet
from ablab.store.hub import lock_name
from ablab.tasks.retrieval.sections import MINI, Data

#: What the hub calls the splits.
HUB_SPLITS = {"train": "train", "val": "valid", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Readers by split; each starts from the beginning when called.

    Args:
        queries: of "train", and of "val" and "test" where there are such.
        passages: pools that are searched, where the source has them.
        images: folder or tar file of the images.
        record: what the manifest says about it.
    """

    queries: Mapping[str, Callable[[], Iterator[Query]]]
    passages: Mapping[str, Callable[[], Iterator[Passage]]]
    images: str | None
    record: dict[str, Any] = field(default_factory=dict)


def open_source(data: Data, *, folder: str | None, revisions: Mapping[str, str], generated: Path) -> Source:
    """Return the readers of what the section `data` names.

    Args:
        data: the section.
        folder: where relative paths start.
        revisions: hub revisions by lock name.
        generated: where the generated set is written; must last as long as its images are read.
    """
    images = None if data.images is None else str((Path(folder or ".") / Path(data.images).expanduser()).resolve())
    if data.source == "mini-m2kr":
        return _mini(data, generated)
    if is_file_reference(data.source):
        return _own(data, folder, images)
    if data.source == "files":
        return _files(data, folder, images)
    return _hub(data, revisions, images)


def _mini(data: Data, generated: Path) -> Source:
    assert data.subset is not None
    if not (generated / "images.tar").exists():
        write_mini_m2kr(generated, forms=(data.form,), subsets=(data.subset,))
    if data.form == "flat":
        queries = {split: [generated / f"{data.subset}_{split}.jsonl"] for split in SPLITS}
        pools = {split: [generated / f"{data.subset}_passages_{split}.jsonl"] for split in SPLITS}
    else:
        task, end = MINI[data.subset], "-00000-of-00001.parquet"
        queries = {split: [generated / f"{task}_data" / f"{name}{end}"] for split, name in HUB_SPLITS.items()}
        pools = {
            split: [generated / f"{task}_passages" / f"{name}_passages{end}"] for split, name in HUB_SPLITS.items()
        }
    found = _of_files(queries, pools, str(generated / "images.tar"), {"source": data.source, "subset": data.subset})
    return replace(found, queries={split: _told(read) for split, read in found.queries.items()})


def _told(read: Callable[[], Iterator[Query]]) -> Callable[[], Iterator[Query]]:
    """Return a reader of generated queries that says of each whether its text or only its image tells what is meant."""

    def queries() -> Iterator[Query]:
        for query in read():
            yield replace(query, kind="textual" if parts_of(query.id).kind == "words" else "visual")

    return queries


def _files(data: Data, folder: str | None, images: str | None) -> Source:
    base = Path(folder or ".")
    queries = {split: [base / name for name in data.queries.of(split)] for split in SPLITS}
    pools = {split: [base / name for name in data.passages.of(split)] for split in SPLITS}
    record = {"source": "files", "files": [Path(name).name for name in data.queries.all]}
    return _of_files(queries, pools, images, record)


def _of_files(
    queries: Mapping[str, list[Path]], pools: Mapping[str, list[Path]], images: str | None, record: dict[str, Any]
) -> Source:
    missing = [str(path) for paths in (*queries.values(), *pools.values()) for path in paths if not path.exists()]
    if missing:
        raise DataError(f"no such file: {', '.join(missing)}; paths start at the study's folder", file=missing[0])
    return Source(
        queries={split: _chained(read_queries, paths) for split, paths in queries.items() if paths},
        passages={split: _chained(read_passages, paths) for split, paths in pools.items() if paths},
        images=images,
        record=record,
    )


def _chained(read: Callable[[Path], Iterator[Any]], paths: list[Path]) -> Callable[[], Iterator[Any]]:
    return lambda: chain.from_iterable(map(read, paths))


def reader(split: str, *, folder: str | None) -> Iterable[dict[str, Any]]:
    """Stand for the signature of a reader of one's own: yields rows of "train", and of "val" and "test" if it has."""
    raise TypeError("only its signature is used")


def _own(data: Data, folder: str | None, images: str | None) -> Source:
    read = find_component(data.source, folder=folder, like=reader)

    def queries(split: str) -> Callable[[], Iterator[Query]]:
        def rows() -> Iterator[Query]:
            for row, values in enumerate(read(split, folder=folder), start=1):
                yield query_of(values, file=f"{data.source} ({split})", row=row)

        return rows

    found = {split: queries(split) for split in SPLITS}
    return Source(
        queries={split: each for split, each in found.items() if next(each(), None) is not None},
        passages={},
        images=images,
        record={"source": data.source},
    )


def _hub(data: Data, revisions: Mapping[str, str], images: str | None) -> Source:
    name = data.hub
    assert name is not None
    if data.subset is None:
        raise ConfigError(f"data.subset: {name} has several; name one, for example OVEN")
    revision = revisions.get(lock_name(DataReference(kind="hub", name=name)))
    tables = {
        kind: HubSet(name=name, subset=f"{data.subset}_{kind}", revision=revision) for kind in ("data", "passages")
    }
    there = {kind: table.splits() for kind, table in tables.items()}

    def rows(kind: str, split: str, of: Callable[..., Any]) -> Callable[[], Iterator[Any]]:
        place = f"{name}/{data.subset}_{kind}/{split}"
        return lambda: (of(values, file=place, row=row) for row, values in tables[kind].rows(split))

    return Source(
        queries={s: rows("data", hub, query_of) for s, hub in HUB_SPLITS.items() if hub in there["data"]},
        passages={
            split: rows("passages", f"{hub}_passages", passage_of)
            for split, hub in HUB_SPLITS.items()
            if f"{hub}_passages" in there["passages"]
        },
        images=images,
        record={"source": name, "subset": data.subset, "revision": revision},
    )
