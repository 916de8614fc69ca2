"""Prepare a corpus: read, divide, tokenize and write it as memory-mapped shards with a manifest; open it again.

A prepared folder holds `<split>-00000.bin` ..., `tokenizer.json` and `manifest.json`, and appears whole or not at
all. It depends on the documents and the settings only, never on the number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ablab.contract.failure import ConfigError, DataError
from ablab.data.division import Division
from ablab.data.documents import Document, corrupt, limited
from ablab.data.encoding import Encoded, encode_documents
from ablab.data.shards import ShardWriter, Tokens, token_dtype
from ablab.data.sources import SPLITS, Source, Split
from ablab.data.tokenizers import (
    ByteTokenizer,
    Tokenizer,
    gpt2_tokenizer,
    load_tokenizer,
    train_tokenizer,
)
from ablab.store.files import TEMPORARY, atomic_folder, write_text
from ablab.store.manifest import read_manifest, write_manifest

#: Text a trained tokenizer sees at most, and bytes of it for each token of a capped train split.
TRAINER_BYTES, BYTES_PER_TOKEN = 2 << 30, 8

Progress = Callable[[float, float, str], None]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where reading stops: documents of each split of the source, tokens of the train split; None is no limit.

    The document that reaches `tokens` is the last.
    """

    documents: int | None = None
    tokens: int | None = None


@dataclass(kw_only=True)
class Counts:
    """What a split holds: documents, tokens (end-of-text included), words and UTF-8 bytes of the original text."""

    documents: int = 0
    tokens: int = 0
    words: int = 0
    bytes: int = 0
    shards: list[str] = field(default_factory=list)

    def add(self, document: Encoded) -> None:
        """Count one more document."""
        self.documents += 1
        self.tokens += len(document.tokens)
        self.words += document.words
        self.bytes += document.bytes


def prepare_corpus(
    source: Source,
    target: str | os.PathLike[str],
    *,
    tokenizer: str = "gpt2",
    vocabulary: int | None = None,
    division: Division | None = None,
    limits: Limits | None = None,
    workers: int | None = None,
    shard_tokens: int = 100_000_000,
    progress: Progress | None = None,
) -> Prepared:
    """Write a prepared corpus to the folder `target`, which must not exist, and open it.

    A split that the source has of its own is taken as it is; one that it lacks is divided off the train split by
    `division`. Documents without a visible character are left out.

    Args:
        source: readers by split (`ablab.data.sources`).
        target: folder to make; a killed run leaves nothing under this name.
        tokenizer: gpt2, bpe (trained on the train split) or bytes.
        vocabulary: size of a trained bpe.
        division: shares and seed; None divides 5 % and 5 % off.
        limits: where reading stops.
        workers: processes that tokenize; None takes the cores.
        shard_tokens: tokens of a shard file.
        progress: called with (bytes of text done, expected total or 0, "bytes") now and then; what it raises ends the
            work cleanly.

    Raises:
        DataError: a corrupt row (file and row are named), or a split that got no document.
        ConfigError: a tokenizer that does not exist.
        DiskFullError: no space is left.
        FileExistsError: `target` exists.
    """
    division = division or Division(validation=0.05, test=0.05)
    plan = _Plan(source, division, limits or Limits())
    _sweep(Path(target))
    encoder, trained_on = _tokenizer(tokenizer, vocabulary, plan, workers)
    report = _Reporter(progress, source.bytes)
    with atomic_folder(target) as folder:
        counts = _write(folder, plan, encoder, workers=workers, shard_tokens=shard_tokens, report=report)
        _check_filled(counts, source, plan)
        write_text(folder / "tokenizer.json", encoder.to_json(), sync=False)
        write_manifest(
            folder,
            kind="corpus",
            source={"name": source.name, **source.record},
            division={**asdict(plan.division), "own_splits": sorted(plan.own)},
            limits=asdict(plan.limits),
            tokenizer={
                "name": encoder.name,
                "vocabulary": encoder.vocabulary,
                "end_of_text": encoder.end_of_text,
                "file": "tokenizer.json",
                "trained_on": trained_on,
            },
            dtype=token_dtype(encoder.vocabulary).name,
            splits={split: asdict(counts[split]) for split in SPLITS if counts[split].documents},
        )
    return Prepared(target)


class _Plan:
    """Which documents are read, in which order, and how they are divided."""

    def __init__(self, source: Source, division: Division, limits: Limits) -> None:
        self.source = source
        self.limits = limits
        self.own = {split for split in SPLITS if split != "train" and split in source.readers}
        self.division = Division(
            validation=0.0 if "val" in self.own else division.validation,
            test=0.0 if "test" in self.own else division.test,
            seed=division.seed,
        )

    def read(self, split: Split) -> Iterator[Document]:
        """Yield the documents of one of the source's splits that hold text."""
        documents = self.source.readers[split]()
        return limited((document for document in documents if document.text.strip()), self.limits.documents)

    def train_texts(self) -> Iterator[str]:
        """Yield the train split for a tokenizer's trainer, up to a bound on its bytes."""
        most = TRAINER_BYTES
        if self.limits.tokens is not None:
            most = min(most, BYTES_PER_TOKEN * self.limits.tokens)
        seen = 0
        for document in self.read("train"):
            data = document.text.encode()
            if self.division.split(data) == "train":
                yield document.text
                seen += len(data)
                if seen >= most:
                    return


class _Reporter:
    """Says how far the work is, about every megabyte."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0
        self._said = 0

    def add(self, done: int) -> None:
        self._done += done
        if self._progress is not None and self._done - self._said >= 1 << 20:
            self._said = self._done
            self._progress(self._done, max(self._total, self._done) if self._total else 0, "bytes")


def _tokenizer(
    name: str, vocabulary: int | None, plan: _Plan, workers: int | None
) -> tuple[Tokenizer, dict[str, int] | None]:
    """Return the tokenizer, and the documents and bytes it was trained on if it was."""
    if name == "gpt2":
        return gpt2_tokenizer(), None
    if name == "bytes":
        return ByteTokenizer(), None
    if name != "bpe" or vocabulary is None:
        raise ConfigError(f"tokenizer {name!r} with vocabulary {vocabulary}: expected gpt2, bytes, or bpe with a size")
    seen = {"documents": 0, "bytes": 0}

    def counted() -> Iterator[str]:
        for text in plan.train_texts():
            seen["documents"] += 1
            seen["bytes"] += len(text.encode())
            yield text

    return train_tokenizer(counted(), vocabulary=vocabulary, threads=workers), seen


def _write(
    folder: Path, plan: _Plan, tokenizer: Tokenizer, *, workers: int | None, shard_tokens: int, report: _Reporter
) -> dict[Split, Counts]:
    dtype = token_dtype(tokenizer.vocabulary)
    counts: dict[Split, Counts] = {split: Counts() for split in SPLITS}
    writers = {split: ShardWriter(folder, split, dtype=dtype, shard_tokens=shard_tokens) for split in SPLITS}
    try:
        for split in SPLITS:
            if split not in plan.source.readers:
                continue
            encoded = encode_documents(
                plan.read(split),
                tokenizer,
                division=plan.division if split == "train" else None,
                split=split,
                workers=workers,
            )
            most = plan.limits.tokens if split == "train" else None
            for document in _until(encoded, counts["train"], most):
                writers[document.split].write(document.tokens)
                counts[document.split].add(document)
                report.add(document.bytes)
    finally:
        for writer in writers.values():
            writer.close()
    for split, writer in writers.items():
        counts[split].shards = writer.shards
    return counts


def _until(encoded: Iterator[Encoded], train: Counts, most: int | None) -> Iterable[Encoded]:
    """Yield documents until the train split, which the caller counts, holds `most` tokens."""
    for document in encoded:
        yield document
        if most is not None and train.tokens >= most:
            # Closing the stream ends its processes now, not when it is collected.
            encoded.close()  # type: ignore[attr-defined]
            return


def _check_filled(counts: dict[Split, Counts], source: Source, plan: _Plan) -> None:
    read = sum(count.documents for count in counts.values())
    if not counts["train"].documents:
        corrupt(source.name, None, f"of {read} documents none is left to train on", "give more text")
    shares = {"val": ("validation", plan.division.validation), "test": ("test", plan.division.test)}
    for split in SPLITS[1:]:
        name, share = shares[split]
        if not counts[split].documents and (share > 0 or split in plan.own):
            corrupt(
                source.name,
                None,
                f"of {read} documents none fell to the {name} split (share {share:g})",
                f"raise data.splits.{name}, cut text files finer (data.documents: paragraphs), or name files for it",
            )


def _sweep(target: Path) -> None:
    """Remove what a killed run left beside the target: unfinished folders whose writer is gone."""
    import shutil

    prefix = f"{TEMPORARY}{target.name}-"
    for path in target.parent.glob(f"{prefix}*"):
        pid = path.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(path, ignore_errors=True)


class Prepared:
    """A prepared corpus: its manifest, tokens, tokenizer and counts.

    Args:
        folder: the folder that `prepare_corpus` made.

    Raises:
        DataError: it was never finished, or is no prepared corpus.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = read_manifest(self.folder)
        if self.manifest.get("kind") != "corpus":
            raise DataError(f"{folder}: no prepared corpus; prepare it first", file=str(folder), row=None)
        self.dtype: np.dtype[np.unsignedinteger] = np.dtype(self.manifest["dtype"]).newbyteorder("<")
        self.vocabulary: int = self.manifest["tokenizer"]["vocabulary"]
        self.end_of_text: int = self.manifest["tokenizer"]["end_of_text"]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits it has."""
        return tuple(self.manifest["splits"])

    def counts(self, split: str) -> Counts:
        """Return documents, tokens, words and bytes of a split.

        Raises:
            DataError: it has no such split.
        """
        if split not in self.manifest["splits"]:
            raise DataError(
                f"{self.folder}: no split {split!r}; it has {', '.join(self.splits)}", file=str(self.folder), row=None
            )
        return Counts(**self.manifest["splits"][split])

    def tokens(self, split: str) -> Tokens:
        """Return the tokens of a split, memory-mapped.

        Raises:
            DataError: it has no such split, or its shards are damaged.
        """
        counts = self.counts(split)
        files = [self.folder / name for name in counts.shards]
        return Tokens(files, dtype=self.dtype, length=counts.tokens)

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer it was made with.

        Raises:
            DataError: its file is missing or damaged.
        """
        described = self.manifest["tokenizer"]
        return load_tokenizer(self.folder / described["file"], name=described["name"])
