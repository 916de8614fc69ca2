"""What the store costs: logging an event beside a bare write of the same line, and reading ten thousand states.

    python benchmarks/store.py [--runs 10000] [--events 100000] [--folder DIR]

The table gives each figure, its bar, and the same work done the plain way in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ablab.contract.state import State
from ablab.store.claims import acquire
from ablab.store.events import EventWriter, read_attempt_events, tail_events
from ablab.store.files import write_json
from ablab.store.layout import Store


def seconds(work: Callable[[], object], *, times: int = 3) -> float:
    """Return the shortest of several timings."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def values(step: int) -> dict[str, float]:
    return {
        "step": step,
        "loss": 3.217 + step * 1e-7,
        "lr": 3e-4 * step,
        "grad_norm": 0.713 + step * 1e-6,
        "tokens": step * 4096,
        "balance": 1 / (step + 3),
    }


def log_with_store(path: Path, rows: list[dict[str, float]]) -> None:
    path.unlink(missing_ok=True)
    with EventWriter(path) as writer:
        for row in rows:
            writer.log("step", **row)


def log_with_json(path: Path, rows: list[dict[str, float]]) -> None:
    """The plain way: json.dumps and a buffered file."""
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps({"e": "step", "t": time.time(), **row}) + "\n")


def log_with_flush(path: Path, rows: list[dict[str, float]]) -> None:
    """The plain way that a reader beside it can follow: flushed every line."""
    with path.open("w") as file:
        for row in rows:
            print(json.dumps({"e": "step", "t": time.time(), **row}), file=file, flush=True)


def fill(store: Store, runs: int) -> None:
    for n in range(runs):
        values_ = {"val/loss": 2.0 + n, "val/perplexity": 7.4 + n}
        state = State(
            status="running", updated=1.7e9, step=n, steps=runs, loss=2.3, best=values_, last=values_, device="cpu"
        )
        store.run(f"train-{n:016x}").create().write_state(state)


def read_plainly(store: Store) -> int:
    """The plain way: pathlib and json, unvalidated."""
    return sum(json.loads(path.read_text())["step"] for path in (store.root / "runs").glob("*/state.json"))


def read_states(store: Store) -> int:
    return sum(state.step for run in store.runs() if (state := run.read_state()) is not None)


def measure(folder: Path, *, runs: int, events: int) -> list[tuple[str, str, str, str]]:
    rows = [values(step) for step in range(events)]
    path = folder / "events.jsonl"
    scale = 1e6 / events
    plain = seconds(lambda: log_with_json(path, rows)) * scale
    flushed = seconds(lambda: log_with_flush(path, rows)) * scale
    ours = seconds(lambda: log_with_store(path, rows)) * scale
    reading = seconds(lambda: read_attempt_events(path))
    tail = seconds(lambda: tail_events(path, 10))
    store = Store(folder / "lab")
    fill(store, runs)
    scan = seconds(lambda: read_states(store))
    scan_plain = seconds(lambda: read_plainly(store))
    claim = seconds(lambda: [acquire(folder / "claim.json").release() for _ in range(50)]) / 50
    whole = seconds(lambda: [write_json(folder / "x.json", rows[0]) for _ in range(50)]) / 50
    return [
        ("log six values", f"{ours:.1f} µs", "10 µs", f"{plain / ours:.1f} x json to a buffered file"),
        ("", "", "", f"{flushed / ours:.1f} x json flushed each line"),
        (f"read {events:,} events", f"{reading:.2f} s", "", ""),
        ("last ten of them", f"{tail * 1e6:.0f} µs", "", f"{reading / tail:,.0f} x reading all"),
        (f"states of {runs:,} runs", f"{scan:.2f} s", "1 s for 10,000", f"{scan_plain / scan:.1f} x pathlib and json"),
        ("claim and release", f"{claim * 1e3:.2f} ms", "", ""),
        ("write a small file, synced", f"{whole * 1e3:.2f} ms", "", ""),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--folder", default=None, help="where to measure; a temporary folder by default")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="ablab-bench-"))
    try:
        table = measure(folder, runs=options.runs, events=options.events)
    finally:
        shutil.rmtree(folder)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| what | this | bar | beside |\n|---|---|---|---|")
    for row in table:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
