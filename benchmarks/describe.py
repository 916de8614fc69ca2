"""Describing rows of retrieval data: beside reading the file and nothing else, and beside counting row by row.

    python benchmarks/describe.py [--rows 2000000] [--parquet-rows 400000] [--processes N] [--folder DIR] [--json]

A file of generated rows is written once for each form: flat JSONL with the nine fields of M2KR, four candidates a row
on average, a tenth of their images "NA", one image of a query in twenty null; and the hub's parquet. Ways, each in an
interpreter of its own, after the pages of the file are dropped from memory (where posix_fadvise is; else it is warm):

- read: the bytes in blocks of 1 MiB, nothing else
- columns: `describe`
- rows: the same counts, every row as a Python dictionary (what `describe` does where columns are in doubt)

Seconds are those of the call; processor seconds and peak memory (proportional set size, all processes) those of the
whole interpreter. The answers of the last two are compared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

WAYS = ("read", "columns", "rows")
WORDS = [
    *(
        "the",
        "of",
        "in",
        "built",
        "by",
        "city",
        "river",
        "church",
        "museum",
        "species",
        "family",
        "bird",
        "plant",
        "north",
    ),
    *("서울", "나무", "large", "small", "century", "king", "order", "found", "which", "first", "music", "island", "–"),
]
ASKS = ("what", "which", "who", "how many", "where", "is this", "when", "name the")
ORDER = "Using the provided image, obtain documents that address the subsequent question:"
#: Texts that rows are put together from.
POOL = 20_000


def pieces(seed: int = 0) -> tuple[list[str], list[str], random.Random]:
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=rng.randrange(20, 60))) for _ in range(POOL)]
    questions = [f"{rng.choice(ASKS)} {' '.join(rng.choices(WORDS, k=6))}?" for _ in range(POOL)]
    return texts, questions, rng


def write_flat(file: Path, rows: int) -> None:
    texts, questions, rng = pieces()
    texts, questions = ([json.dumps(one, ensure_ascii=False) for one in many] for many in (texts, questions))
    images = [f'"wiki/{i}.jpg"' if i % 10 else '"NA"' for i in range(POOL)]
    with file.open("w", encoding="utf-8", buffering=1 << 20) as out:
        for number in range(rows):
            first, count = int(rng.random() * (POOL - 8)), 1 + number % 7
            ids = '", "'.join(map(str, range(first, first + count)))
            image = f'"oven/{int(rng.random() * 1e6):08d}.jpg"' if number % 20 else "null"
            out.write(
                f'{{"answer": [{questions[first]}], "data_id": "train_{number:08d}", "dataset_id": "infoseek", '
                f'"image_path": {image}, "instruction": "{ORDER}", "passage_id": ["{ids}"], '
                f'"passage_image_path": [{", ".join(images[first : first + count])}], '
                f'"passage_text": [{", ".join(texts[first : first + count])}], "question": {questions[-first]}}}\n'
            )


def write_hub(file: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, questions, rng = pieces()
    schema = pa.schema(
        [(name, pa.string()) for name in ("question_id", "instruction", "question", "img_path", "question_type")]
        + [(name, pa.list_(pa.string())) for name in ("pos_item_ids", "pos_item_contents", "answers")]
    )
    with pq.ParquetWriter(file, schema) as writer:
        for begin in range(0, rows, 20_000):
            numbers = range(begin, min(begin + 20_000, rows))
            firsts = [int(rng.random() * (POOL - 8)) for _ in numbers]
            spans = [(first, first + 1 + number % 7) for number, first in zip(numbers, firsts, strict=True)]
            columns = {
                "question_id": [f"train_{number:08d}" for number in numbers],
                "instruction": [ORDER] * len(numbers),
                "question": [questions[-first] for first in firsts],
                "img_path": [
                    f"oven/{first:08d}.jpg" if number % 20 else None
                    for number, first in zip(numbers, firsts, strict=True)
                ],
                "question_type": ["automatic"] * len(numbers),
                "pos_item_ids": [list(map(str, range(*span))) for span in spans],
                "pos_item_contents": [texts[slice(*span)] for span in spans],
                "answers": [[questions[first]] for first in firsts],
            }
            writer.write_table(pa.table(columns, schema=schema))


def drop(file: Path) -> bool:
    """Drop a file's pages from memory; whether that is possible."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        if not hasattr(os, "posix_fadvise"):
            return False
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def read(file: Path) -> int:
    size = 0
    with file.open("rb", buffering=0) as opened:
        while block := opened.read(1 << 20):
            size += len(block)
    return size


def tally(file: Path, way: str, processes: int) -> object:
    from ablab.contract.tables import Fields
    from ablab.data.tables.describe import as_json, describe, roles_of
    from ablab.data.tables.parts import map_parts, parts_of
    from ablab.data.tables.tally import merged

    if way == "columns":
        return as_json(describe([file], processes=processes))
    parts = parts_of([file])
    roles = roles_of(parts, Fields())
    return as_json(merged(map_parts(by_rows, parts, itertools.repeat(roles, len(parts)), processes=processes), roles))


def by_rows(part, roles):
    from ablab.data.tables.parts import rows_of
    from ablab.data.tables.tally import tally_rows

    return tally_rows(rows_of(part), roles)


def run(way: str, file: Path, processes: int) -> None:
    start = time.perf_counter()
    found = read(file) if way == "read" else tally(file, way, processes)
    print(json.dumps({"seconds": time.perf_counter() - start, "found": found}))


def family(process: psutil.Process) -> Iterator[int]:
    for one in (process, *process.children(recursive=True)):
        try:
            yield one.memory_full_info().pss
        except psutil.Error:
            continue


def measure(way: str, file: Path, processes: int) -> dict[str, object]:
    cold = drop(file)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, __file__, "--way", way, "--file", str(file), "--processes", str(processes)]
    peak, largest = 0, 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                sizes = list(family(process))
            except psutil.Error:
                break
            peak, largest = max(peak, sum(sizes)), max(largest, *sizes[1:], 0)
            time.sleep(0.2)
        out = child.stdout.read() if child.stdout else ""
    if child.returncode:
        raise SystemExit(f"{way} failed with {child.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(out.splitlines()[-1]), "cpu": spent, "peak": peak, "worker": largest, "cold": cold}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--parquet-rows", type=int, default=400_000)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--folder", type=Path, help="where the files are written for the time of the run")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run(options.way, options.file, options.processes)
        return
    with tempfile.TemporaryDirectory(prefix="ablab-bench-", dir=options.folder) as name:
        for form, write, rows in (
            ("flat.jsonl", write_flat, options.rows),
            ("hub.parquet", write_hub, options.parquet_rows),
        ):
            if rows:
                file = Path(name) / form
                write(file, rows)
                report(file, rows, options)
                file.unlink()


def report(file: Path, rows: int, options: argparse.Namespace) -> None:
    rounds = [{way: measure(way, file, options.processes) for way in options.ways} for _ in range(options.rounds)]
    found = {way: min((one[way] for one in rounds), key=lambda row: row["seconds"]) for way in options.ways}
    if {"columns", "rows"} <= found.keys():
        assert found["columns"]["found"] == found["rows"]["found"], "columns and rows differ"
    if options.json:
        print(
            json.dumps({way: [{k: v for k, v in one[way].items() if k != "found"} for one in rounds] for way in found})
        )
        return
    size = file.stat().st_size / 1e9
    print(f"\n{file.name}: {rows:,} rows, {size:.2f} GB; {options.processes} processes, load {os.getloadavg()[0]:.1f}")
    print("from disk" if found[options.ways[0]]["cold"] else "from memory", f"best of {options.rounds}\n")
    print("| way | seconds | of read | processor s | µs of a core a row | peak, MiB | of it a process |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    plain = found["read"]["seconds"] if "read" in found else float("nan")
    for way, row in found.items():
        print(
            f"| {way} | {row['seconds']:.1f} | {row['seconds'] / plain:.2f} | {row['cpu']:.1f} "
            f"| {row['cpu'] / rows * 1e6:.1f} | {row['peak'] / 2**20:.0f} | {row['worker'] / 2**20:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
