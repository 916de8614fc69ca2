"""Documents to tokens on all cores, in order, with bounded memory.

Batches of about a megabyte of text go to worker processes and come back in the order they went; what is in flight is
bounded. A small corpus never starts a process. Processes, not threads: the word split holds the interpreter's lock.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import connection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ablab.data.division import Division
from ablab.data.documents import Document
from ablab.data.sources import SPLITS, Split
from ablab.data.tokenizers import Tokenizer
from ablab.store.processes import cores

#: Characters of a batch, and characters encoded in this process before others are started.
_BATCH, _ALONE = 1 << 20, 1 << 24
#: Seconds a worker process goes on after it was asked to end.
_GRACE = 10.0


class Encoded(NamedTuple):
    """One document as tokens, end-of-text last.

    `tokens` has shape (tokens,), uint32; `bytes` are those of its UTF-8 text, `words` its whitespace-separated words.
    """

    split: Split
    tokens: npt.NDArray[np.uint32]
    bytes: int
    words: int


@dataclass(frozen=True, kw_only=True)
class _Coded:
    """A batch of encoded documents, as few large objects: cheap to send between processes."""

    tokens: bytes
    lengths: npt.NDArray[np.int64]
    splits: bytes
    byte_counts: npt.NDArray[np.int64]
    word_counts: npt.NDArray[np.int64]

    def documents(self) -> Iterator[Encoded]:
        tokens = np.frombuffer(self.tokens, dtype=np.uint32)
        ends = np.cumsum(self.lengths)
        for i, end in enumerate(ends):
            yield Encoded(
                SPLITS[self.splits[i]],
                tokens[end - self.lengths[i] : end],
                int(self.byte_counts[i]),
                int(self.word_counts[i]),
            )


def encode_documents(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    *,
    division: Division | None = None,
    split: Split = "train",
    workers: int | None = None,
    alone: int | None = None,
) -> Iterator[Encoded]:
    """Yield the documents encoded, in their order; the result does not depend on the number of processes.

    Args:
        documents: any number of them; no more than a few batches a process are held.
        tokenizer: encodes the text; it is sent to the processes once.
        division: which split each document belongs to; None puts all into `split`.
        split: the split of all documents where there is no division.
        workers: processes; None takes the cores this process may use, 1 starts none.
        alone: characters encoded in this process before others are started; None is 16 million.
    """
    count = workers if workers is not None else cores()
    coder = _Coder(tokenizer, division, split)
    batches = _batches(documents)
    threshold = _ALONE if alone is None else alone
    seen = 0
    while count == 1 or seen < threshold:
        batch = next(batches, None)
        if batch is None:
            return
        yield from coder.code(batch).documents()
        seen += sum(map(len, batch))
    yield from _in_parallel(batches, coder, count)


def _in_parallel(batches: Iterator[list[str]], coder: _Coder, count: int) -> Iterator[Encoded]:
    first = next(batches, None)
    if first is None:
        return
    # Spawned, since a fork of a process that has run threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(coder,))
    waiting: deque[Future[_Coded]] = deque()
    try:
        for batch in chain([first], batches):
            waiting.append(_submit(pool, batch))
            if len(waiting) > 2 * count:
                yield from waiting.popleft().result().documents()
        while waiting:
            yield from waiting.popleft().result().documents()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, batch: list[str]) -> Future[_Coded]:
    """Hand a batch to the pool; processes that it starts for it begin with SIGTERM blocked, until `_start`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        return pool.submit(_code, batch)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _batches(documents: Iterable[Document]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for document in documents:
        batch.append(document.text)
        size += len(document.text) + 64
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Coder:
    """Encodes a batch; sent to each process once."""

    def __init__(self, tokenizer: Tokenizer, division: Division | None, split: Split) -> None:
        self._tokenizer = tokenizer
        self._division = division
        self._split = split

    def code(self, texts: list[str]) -> _Coded:
        end = np.array([self._tokenizer.end_of_text], dtype=np.uint32).tobytes()
        parts: list[bytes] = []
        lengths: list[int] = []
        splits: list[int] = []
        byte_counts: list[int] = []
        word_counts: list[int] = []
        for text in texts:
            tokens = self._tokenizer.encode(text)
            parts += (tokens.tobytes(), end)
            lengths.append(len(tokens) + 1)
            data = text.encode()
            splits.append(SPLITS.index(self._division.split(data) if self._division else self._split))
            byte_counts.append(len(data))
            word_counts.append(len(text.split()))
        return _Coded(
            tokens=b"".join(parts),
            lengths=np.array(lengths, dtype=np.int64),
            splits=bytes(splits),
            byte_counts=np.array(byte_counts, dtype=np.int64),
            word_counts=np.array(word_counts, dtype=np.int64),
        )


#: The coder of a worker process, set once when it starts.
_mine: list[_Coder] = []


def _start(coder: _Coder) -> None:
    """Prepare a worker process: it leaves a stop to its parent and ends with it, even when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A signal to the whole group reaches parent and workers at once: the parent gets time to end its workers itself.
    signal.signal(signal.SIGTERM, lambda *_: _end_after(_GRACE))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _mine[:] = [coder]


def _end_after(seconds: float) -> None:
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _code(texts: list[str]) -> _Coded:
    return _mine[0].code(texts)
