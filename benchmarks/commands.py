"""Time of whole commands beyond a bare interpreter: `ablab --help`, `check`, `plan`, `status` on 10,000 runs.

    python benchmarks/commands.py [--rounds 7] [--runs 10000]

Each round starts the bare interpreter and every command once, in turn, so that a change in the machine's load meets
all alike. What is shown are medians, and medians of the differences; processor seconds hold on a busy machine too.
Bars: --help 0.2 s, check 0.35 s, status 2 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDY = Path(__file__).parents[1] / "studies" / "gpt-oelm.yaml"


def fill(store: Path, count: int) -> None:
    """Write a store of `count` runs, one in ten unfinished."""
    for number in range(count):
        run = store / "runs" / f"train-{number:020x}"
        run.mkdir(parents=True)
        done = number % 10 != 0
        state = {"format": 1, "status": "done" if done else "stopped", "attempt": 1, "updated": time.time(), "step": 40,
                 "steps": 100, "progress": 1.0 if done else 0.4, "started": time.time() - 60, "loss": 2.5,
                 "best": {"val/loss": 2.4}, "last": {"val/loss": 2.4}, "device": "cpu", "rss": 300_000_000}  # fmt: skip
        order = {"format": 1, "key": f"{number:020x}", "stage": "train", "kind": "train", "task": "language-modeling",
                 "study": "big", "profile": "full", "experiment": f"arm-{number // 3}", "seed": number % 3,
                 "folder": str(run)}  # fmt: skip
        (run / "state.json").write_text(json.dumps(state))
        (run / "order.json").write_text(json.dumps(order))


def seconds(command: list[str]) -> tuple[float, float]:
    """Return (wall, processor) seconds of a command."""
    began = time.perf_counter()
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
    _, _, used = os.wait4(child.pid, 0)
    child.returncode = 0
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=10_000)
    options = parser.parse_args()
    ablab = str(Path(sys.executable).with_name("ablab"))
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / "big", options.runs)
        small = ["--store", str(Path(folder) / "small")]
        commands = {
            "bare interpreter": ([sys.executable, "-c", "pass"], ""),
            "ablab --help": ([ablab, "--help"], "0.2"),
            "ablab check gpt-oelm": ([ablab, "check", str(STUDY), "--profile", "laptop", *small], "0.35"),
            "ablab plan gpt-oelm": ([ablab, "plan", str(STUDY), "--profile", "laptop", *small], ""),
            f"ablab status, {options.runs:,} runs": ([ablab, "status", "--store", f"{folder}/big"], "2"),
            f"ablab status --oneline, {options.runs:,} runs": (
                [ablab, "status", "--oneline", "--store", f"{folder}/big"],
                "2",
            ),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(options.rounds + 1):
            for name, (command, _bar) in commands.items():
                times[name].append(seconds(command))
    bare = times["bare interpreter"][1:]
    print("| command | wall, s | processor, s | wall beyond the interpreter, s | processor beyond, s | bar, s |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, (_, bar) in commands.items():
        mine = times[name][1:]
        wall, used = (statistics.median(pair[i] for pair in mine) for i in (0, 1))
        more, more_used = (statistics.median(a[i] - b[i] for a, b in zip(mine, bare, strict=True)) for i in (0, 1))
        print(f"| {name} | {wall:.3f} | {used:.3f} | {more:.3f} | {more_used:.3f} | {bar} |")


if __name__ == "__main__":
    main()
