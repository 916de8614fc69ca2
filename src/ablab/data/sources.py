"""What a study calls a source, as readers: bundled sets, hub data sets, and the user's own files.

A source may come with splits of its own ("train", "val", "test"); `ablab.data.corpora` divides what is left.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from ablab import bundled
from ablab.contract.failure import ConfigError
from ablab.data.documents import Document, corrupt
from ablab.data.readers.hub import HubSet
from ablab.data.readers.jsonl import read_jsonl
from ablab.data.readers.opening import COMPRESSIONS, format_suffix
from ablab.data.readers.parquet import read_parquet
from ablab.data.readers.text import Rule, read_text
from ablab.data.readers.wikitext import join_articles

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Reader = Callable[[], Iterator[Document]]

#: What hub data sets call their splits.
_OFFICIAL: dict[str, Split] = {
    "train": "train",
    "validation": "val",
    "valid": "val",
    "val": "val",
    "dev": "val",
    "test": "test",
}
_UNREADABLE = {".csv", ".tsv", ".zip", ".zst", ".arrow", ".pdf", ".docx", ".7z", ".tar"}
#: Bytes of text a compressed file is taken to hold for each of its own; for progress only.
_EXPANDS = 3.7


@dataclass(frozen=True, kw_only=True)
class Source:
    """Documents by split; every reader starts from the beginning when called.

    Args:
        name: what the study calls it.
        readers: at least "train"; "val" and "test" where the source has splits of its own.
        bytes: about how many bytes of text it holds, for progress; 0 when unknown.
        record: what the manifest says about it (source, licence, revision, files).
    """

    name: str
    readers: dict[Split, Reader]
    bytes: int = 0
    record: dict[str, Any] = field(default_factory=dict)


def bundled_source(name: str) -> Source:
    """Return a bundled corpus: austen (a document is a chapter) or wordnet (a document is a synset).

    Raises:
        ConfigError: there is no such corpus.
        DataError: a file of it is missing or changed.
    """
    if name not in _BUNDLED_RULES:
        raise ConfigError(f"no bundled corpus {name!r}; there are {', '.join(_BUNDLED_RULES)}", source=name)
    bundle = bundled.verify(name)
    folder = bundled.path(name)
    files = [folder / file for file in bundle.files if format_suffix(file) == ".txt" and not file.startswith("LICENCE")]
    return Source(
        name=name,
        readers={"train": _chained(files, documents=_BUNDLED_RULES[name])},
        bytes=_text_bytes(files),
        record={"source": bundle.source, "licence": bundle.licence, "files": bundle.files},
    )


_BUNDLED_RULES: dict[str, Rule] = {"austen": "chapters", "wordnet": "lines"}


def files_source(
    files: Sequence[str | os.PathLike[str]],
    *,
    folder: str | os.PathLike[str] | None = None,
    validation_files: Sequence[str | os.PathLike[str]] = (),
    test_files: Sequence[str | os.PathLike[str]] = (),
    field: str = "text",
    documents: Rule = "file",
) -> Source:
    """Return the user's own text, JSONL and parquet files, in the order given.

    Args:
        files: files of the train split, or of everything where the others are empty.
        folder: where relative paths start (the study's folder); None is the current one.
        validation_files: files of the validation split.
        test_files: files of the test split.
        field: field or column that holds the text of a row.
        documents: what a document of a text file is.

    Raises:
        DataError: files are missing (all of them are named) or of a format that is not read.
    """
    base = Path(folder) if folder is not None else Path()
    given: dict[Split, list[Path]] = {
        "train": [base / file for file in files],
        "val": [base / file for file in validation_files],
        "test": [base / file for file in test_files],
    }
    every = list(chain.from_iterable(given.values()))
    missing = [str(path) for path in every if not path.exists()]
    if missing:
        corrupt(missing[0], None, f"no such file: {', '.join(missing)}", "check data.files; paths start at the study")
    twice = sorted({str(path) for path in every if every.count(path) > 1})
    if twice:
        corrupt(twice[0], None, f"named twice: {', '.join(twice)}", "name every file once, in one split")
    for path in every:
        reader_of(path, field=field, documents=documents)
    return Source(
        name="files",
        readers={split: _chained(paths, field=field, documents=documents) for split, paths in given.items() if paths},
        bytes=_text_bytes(every),
        record={"files": [path.name for path in every], "documents": documents},
    )


def hub_source(
    name: str,
    *,
    subset: str | None = None,
    revision: str | None = None,
    field: str = "text",
    official: bool = True,
    streaming: bool = False,
    cache: str | None = None,
) -> Source:
    """Return a data set of the hub with its own splits; WikiText's lines are joined into articles.

    Args:
        name: hub id, or a local folder in the hub's layout.
        subset: configuration of the data set.
        revision: commit; None takes the newest.
        field: column that holds the text.
        official: take its own validation and test splits; otherwise they are not read at all.
        streaming: read over the network without keeping a copy.
        cache: folder for downloads; None takes the library's own.

    Raises:
        DataError: the hub cannot be reached, or the set has no split "train".
        ConfigError: the `datasets` library is not installed.
    """
    hub = HubSet(name=name, subset=subset, revision=revision, cache=cache)
    own = hub.splits()
    readers: dict[Split, Reader] = {}
    for split in own:
        target = _OFFICIAL.get(split)
        if target == "train" or (official and target is not None and target not in readers):
            read = partial(hub.read, split, field=field, streaming=streaming)
            readers[target] = partial(_articles, read) if _is_wikitext(name, subset) else read
    if "train" not in readers:
        corrupt(name, None, f"it has no split 'train'; it has {', '.join(own)}", "choose another subset")
    record = {"hub": name, "subset": subset, "revision": revision, "splits": list(own)}
    return Source(name=name, readers=readers, record=record)


def _articles(read: Reader) -> Iterator[Document]:
    return join_articles(read())


def _is_wikitext(name: str, subset: str | None) -> bool:
    return "wikitext" in Path(name).name.lower() or (subset or "").startswith("wikitext")


def reader_of(path: str | os.PathLike[str], *, field: str = "text", documents: Rule = "file") -> Reader:
    """Return the reader of a file by its suffix: .jsonl, .ndjson, .json (one object a line), .parquet, else text.

    Raises:
        DataError: the suffix names a format that is not read.
    """
    suffix = format_suffix(path)
    if Path(path).is_dir() or suffix in _UNREADABLE or Path(path).suffix.lower() in _UNREADABLE:
        corrupt(path, None, "not a text, JSONL or parquet file", "convert it (text and JSONL may be .gz, .xz, .bz2)")
    if suffix in {".jsonl", ".ndjson", ".json"}:
        return partial(read_jsonl, path, field=field)
    if suffix == ".parquet":
        return partial(read_parquet, path, field=field)
    return partial(read_text, path, documents=documents)


def _chained(files: Sequence[Path], *, field: str = "text", documents: Rule = "file") -> Reader:
    readers = [reader_of(path, field=field, documents=documents) for path in files]
    return lambda: chain.from_iterable(reader() for reader in readers)


def _text_bytes(files: Sequence[Path]) -> int:
    return sum(
        int(path.stat().st_size * (_EXPANDS if path.suffix.lower() in (*COMPRESSIONS, ".parquet") else 1))
        for path in files
    )
