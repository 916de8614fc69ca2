"""What searching a pool costs: exact search beside the bare matrix products, and the compressed kinds beside both.

    python benchmarks/retrieval_search.py [--passages 100000] [--vectors 32] [--width 128] [--queries 32]
                                          [--threads 1] [--folder DIR] [--peer PYTHON]

Passages are drawn around themes, as a trained encoder places them; a query is a passage with noise. The products are
those of the best part of the queries out of several. With --peer, a Python of another environment that has pylate
(1.2.0 installs under torch 2.13), the same vectors are searched by its PLAID too, and what it finds is compared with
the exact search.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ablab.models.search import Index, IndexWriter, compress, open_index, search, state_loss

PEER = Path(__file__).parent / "plaid_peer.py"


def draw(count: int, vectors: int, width: int, *, seed: int, themes: Tensor) -> Tensor:
    """Return passages (n, P, D) of length 1: a theme and as much noise again."""
    generator = torch.Generator().manual_seed(seed)
    chosen = themes[torch.randint(len(themes), (count,), generator=generator)]
    noise = torch.randn((count, vectors, width), generator=generator) / width**0.5
    return normalize(chosen + noise, dim=-1)


def bare_products(index: Index, queries: Tensor, *, rows: int) -> None:
    """Multiply all passages with all queries, nothing else; the shards are read as the search reads them."""
    flat = queries.flatten(0, 1)
    out: Tensor | None = None
    for shard in index.shards():
        for tile in shard.tiles:
            columns = tile.flatten(0, 1).T
            for part in flat.split(rows):
                if out is None:
                    out = torch.empty((rows, columns.size(1)))
                torch.mm(part, columns, out=out[: len(part)])


def median(work: Callable[[], object], *, times: int = 3) -> float:
    """Return the median seconds of several runs after one that is not counted."""
    work()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def build(folder: Path, arguments: argparse.Namespace, themes: Tensor) -> dict[str, Index]:
    """Write the pool exactly in both types, and compressed."""
    found = {}
    for name, options in {"fp32": {"dtype": "fp32"}, "bf16": {"dtype": "bf16", "bounds": True}}.items():
        with IndexWriter(folder / name, **options) as writer:
            for seed, begin in enumerate(range(0, arguments.passages, 4096)):
                count = min(4096, arguments.passages - begin)
                writer.add(draw(count, arguments.vectors, arguments.width, seed=seed, themes=themes))
        found[name] = open_index(folder / name)
    found["8-bit"] = compress(found["fp32"], folder / "8-bit", kind="8-bit")
    for bits in (4, 2):
        kind = f"residual, {bits} bits"
        found[kind] = compress(
            found["fp32"], folder / f"residual-{bits}", kind="residual", bits=bits, centroids=arguments.centroids
        )
    return found


def make_queries(index: Index, count: int) -> Tensor:
    """Return queries near passages of the pool."""
    (first, *_) = index.passages_by_shard()
    generator = torch.Generator().manual_seed(12345)
    chosen = first[torch.randperm(len(first), generator=generator)[:count]]
    noise = torch.randn(chosen.shape, generator=generator) / chosen.size(2) ** 0.5
    return normalize(chosen + 0.7 * noise, dim=-1)


def peer(python: str, folder: Path, index: Index, queries: Tensor, arguments: argparse.Namespace) -> dict:
    """Build and search pylate's PLAID over the same vectors, in its own process and environment."""
    from safetensors.torch import save_file

    passages = torch.cat([part.half() for part in index.passages_by_shard()])
    save_file({"passages": passages}, folder / "passages.safetensors")
    save_file({"queries": queries.contiguous()}, folder / "queries.safetensors")
    # Its compiler looks for ninja beside its Python.
    environment = os.environ | {"PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [python, str(PEER), str(folder), "10", str(arguments.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    if done.returncode or not answers:
        raise SystemExit(f"the peer failed:\n{done.stderr[-3000:]}")
    return json.loads(answers[-1].removeprefix("ANSWER "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--vectors", type=int, default=32)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--centroids", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--peer", default=None, help="Python of an environment with pylate")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    themes = normalize(
        torch.randn(2000, arguments.vectors, arguments.width, generator=torch.Generator().manual_seed(7)), dim=-1
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        began = time.perf_counter()
        indexes = build(folder, arguments, themes)
        print(f"built in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        report(indexes, make_queries(indexes["fp32"], arguments.queries), arguments, folder)


def report(indexes: dict[str, Index], queries: Tensor, arguments: argparse.Namespace, folder: Path) -> None:
    """Time and print everything."""
    exact = indexes["fp32"]
    bare = min(median(lambda rows=rows: bare_products(exact, queries, rows=rows)) for rows in (128, 256, 1024))
    shape = f"{arguments.passages:,} x {arguments.vectors} x {arguments.width}"
    print(f"{shape}, {arguments.queries} queries, top 10, {arguments.threads} thread(s)\n")
    print("| search | seconds | of the bare products in fp32 | best 10 of the exact search held | size |")
    print("|---|---|---|---|---|")
    full = 4 * arguments.passages * arguments.vectors * arguments.width
    print(f"| bare products, fp32 | {bare:.2f} | 1.00 | | {full / 1e6:,.0f} MB |")
    for name, index in indexes.items():
        taken = median(lambda index=index: search(index, queries, k=10))
        held = state_loss(index, exact, queries, k=10).overlap
        print(f"| {name} | {taken:.2f} | {taken / bare:.2f} | {held:.3f} | {index.bytes / 1e6:,.0f} MB |")
    if arguments.peer:
        other = peer(arguments.peer, folder, exact, queries, arguments)
        wanted = search(exact, queries, k=10).ids.tolist()
        held = statistics.mean(len(set(a) & set(b)) / 10 for a, b in zip(other["ids"], wanted, strict=True))
        print(f"| pylate's PLAID, 4 bits | {other['seconds']:.2f} | {other['seconds'] / bare:.2f} | {held:.3f} | |")
        print(f"\npylate built its index in {other['build']:.0f} s")
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak resident memory {rss:,.0f} MiB (pages of files included)")


if __name__ == "__main__":
    main()
