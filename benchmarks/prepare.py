"""Preparing text with GPT-2's BPE: tokens a second and peak memory, beside plain ways of doing the same.

    python benchmarks/prepare.py [--copies 8] [--corpus austen] [--workers N] [--json]

Every way reads the same JSONL file (a bundled corpus, several copies of it), adds an end-of-text token to each
document and writes the tokens to disk; each runs in a process of its own, in turn. Peak memory is the sum over the
process and its children (proportional set size). Ways:

- one by one: `tokenizers` of Hugging Face, a document at a time, tokens gathered in a list and written at the end
- batches: the same with `encode_batch` over a thousand documents, which uses the library's own threads
- map: `datasets.map` with one process a core, then a memory map filled in batches, as nanoGPT prepares OpenWebText
- ablab: `prepare_corpus`, which also divides the documents, counts words and bytes and writes checksums

Tokens a second leave out the start of the interpreter, not the imports nor the start of worker processes. CPU seconds
count everything, and hold on a machine that is busy with other work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

WAYS = ("one by one", "batches", "map", "ablab, 1 process", "ablab")


def texts(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def library_tokenizer():
    import lzma

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from ablab import bundled

    folder = bundled.path("gpt2")
    vocabulary = json.loads(lzma.decompress((folder / "encoder.json.xz").read_bytes()))
    lines = lzma.decompress((folder / "vocab.bpe.xz").read_bytes()).decode().splitlines()[1:]
    found = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(line.split()) for line in lines if line]))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    return found


def one_by_one(file: Path, target: Path, workers: int) -> int:
    import numpy as np

    tokenizer = library_tokenizer()
    tokens: list[int] = []
    for text in texts(file):
        tokens.extend(tokenizer.encode(text).ids)
        tokens.append(50256)
    np.array(tokens, dtype=np.uint16).tofile(target)
    return len(tokens)


def batches(file: Path, target: Path, workers: int) -> int:
    from itertools import islice

    import numpy as np

    os.environ["RAYON_NUM_THREADS"] = str(workers)
    tokenizer = library_tokenizer()
    count, stream = 0, texts(file)
    with target.open("wb") as out:
        while batch := list(islice(stream, 1000)):
            for encoding in tokenizer.encode_batch(batch):
                ids = np.array([*encoding.ids, 50256], dtype=np.uint16)
                out.write(ids.tobytes())
                count += len(ids)
    return count


def mapped(file: Path, target: Path, workers: int) -> int:
    import datasets
    import numpy as np

    datasets.disable_progress_bars()
    tokenizer = library_tokenizer()

    def process(example):
        ids = [*tokenizer.encode(example["text"]).ids, 50256]
        return {"ids": ids, "len": len(ids)}

    rows = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(target) + ".cache")
    rows = rows.map(process, remove_columns=rows.column_names, num_proc=workers)
    total = int(np.sum(rows["len"], dtype=np.uint64))
    out = np.memmap(target, dtype=np.uint16, mode="w+", shape=(total,))
    place = 0
    for shard in range(64):
        ids = rows.shard(num_shards=64, index=shard, contiguous=True).with_format("numpy")["ids"]
        part = np.concatenate(list(ids)) if len(ids) else np.empty(0)
        out[place : place + len(part)] = part
        place += len(part)
    out.flush()
    return total


def ablab(file: Path, target: Path, workers: int) -> int:
    from ablab.data.corpora import prepare_corpus
    from ablab.data.sources import files_source

    prepared = prepare_corpus(files_source([file]), target, tokenizer="gpt2", workers=workers)
    return sum(prepared.counts(split).tokens for split in prepared.splits)


def ablab_alone(file: Path, target: Path, workers: int) -> int:
    return ablab(file, target, 1)


FUNCTIONS: dict[str, Callable[[Path, Path, int], int]] = dict(
    zip(WAYS, (one_by_one, batches, mapped, ablab_alone, ablab), strict=True)
)


def memory(process: psutil.Process) -> int:
    """Return the bytes of a process and its children, shared pages counted once."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def measure(way: str, file: Path, folder: Path, workers: int) -> dict[str, float]:
    target = folder / way.replace(" ", "-").replace(",", "")
    command = [sys.executable, __file__, "--way", way, "--file", str(file), "--target", str(target)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen([*command, "--workers", str(workers)], stdout=subprocess.PIPE, text=True) as child:
        process, peak = psutil.Process(child.pid), 0
        while child.poll() is None:
            try:
                peak = max(peak, memory(process))
            except psutil.Error:
                break
            time.sleep(0.05)
        out = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise SystemExit(f"{way} failed with {child.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(out.splitlines()[-1]), "peak": peak, "cpu": spent}


def write_corpus(name: str, copies: int, file: Path) -> tuple[int, int]:
    from ablab.data.sources import bundled_source

    documents = [document.text for document in bundled_source(name).readers["train"]()]
    with file.open("w", encoding="utf-8") as out:
        for _ in range(copies):
            out.writelines(json.dumps({"text": text}) + "\n" for text in documents)
    return copies * len(documents), copies * sum(len(text.encode()) for text in documents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="austen", choices=("austen", "wordnet"))
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        start = time.perf_counter()
        tokens = FUNCTIONS[options.way](options.file, options.target, options.workers)
        print(json.dumps({"tokens": tokens, "seconds": time.perf_counter() - start}))
        return
    with tempfile.TemporaryDirectory(prefix="ablab-bench-") as name:
        folder = Path(name)
        documents, size = write_corpus(options.corpus, options.copies, folder / "corpus.jsonl")
        found = {way: measure(way, folder / "corpus.jsonl", folder, options.workers) for way in WAYS}
    assert len({row["tokens"] for row in found.values()}) == 1, "the ways differ in their tokens"
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.corpus} x {options.copies}: {documents:,} documents, {size / 1e6:.0f} MB; {options.workers} cores")
    print(f"load {os.getloadavg()[0]:.1f}\n")
    print("| way | tokens/s | ratio | CPU seconds | peak memory |\n|---|---|---|---|---|")
    plain = found["one by one"]
    for way, row in found.items():
        rate = row["tokens"] / row["seconds"]
        ratio = plain["seconds"] / row["seconds"]
        print(f"| {way} | {rate / 1e6:.2f} M | {ratio:.2f} | {row['cpu']:.1f} | {row['peak'] / 2**20:.0f} MiB |")


if __name__ == "__main__":
    main()
