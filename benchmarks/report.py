"""Time and size of a report: a study of 300 training runs with 10,000 logged steps each.

    python benchmarks/report.py [--arms 100] [--seeds 3] [--steps 10000] [--rounds 3]

The store is written first (about 400 MB, into a temporary folder) and not timed. The command is what a user types, in
a process of its own, with nothing cached; beside it stands what reading the same events line by line with the
standard library takes. Bars: 5 s, 10 MB.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BAR_SECONDS, BAR_BYTES = 5.0, 10_000_000


def study_text(arms: int, seeds: int, steps: int) -> str:
    """Return a study of that many arms, which differ in their learning rate."""
    names = [f"arm-{number:03d}" for number in range(arms)]
    experiments = {
        name: {"pipeline": {"train": {"optimizer": {"learning_rate": round(1e-4 * 1.03**place, 9)}}}}
        for place, name in enumerate(names)
    }
    study = {
        "name": "large",
        "question": "Which learning rate stays within 5 % of the first?",
        "task": "language-modeling",
        "seeds": list(range(1, seeds + 1)),
        "defaults": {
            "data": {"source": "austen", "tokenizer": {"name": "bytes"}},
            "model": {"width": 32, "layers": 2, "heads": 2, "feedforward": 64, "context": 32},
            "pipeline": {
                "train": {"steps": steps, "batch": 4, "validation": {"every": max(1, steps // 40)}, "log_every": 1},
                "evaluate": None,
            },
        },
        "experiments": experiments,
        "comparisons": [
            {
                "name": "rates",
                "baseline": names[0],
                "variants": names[1:10],
                "factor": "pipeline.train.optimizer.learning_rate",
                "metric": "val/perplexity",
                "criterion": "ratio <= 1.05",
            }
        ],
    }
    # JSON is YAML.
    return json.dumps(study, indent=1)


def fill(study: Path, store: Path, steps: int) -> int:
    """Write every run of the study as finished; return the bytes of all events."""
    from ablab import load

    lab = load(study, store=store)
    written = 0
    for number, run in enumerate(lab.plan().runs.values()):
        folder = lab.store.run(run.name).create()
        noise = random.Random(number)
        metrics = {}
        if run.stage.kind == "train":
            level = 1.6 + 0.002 * number / 3 + 0.01 * noise.random()
            text = events(steps, level, noise, began=1.7e9 + 600.0 * number)
            attempt = folder.attempt(1).create()
            attempt.events.write_text(text)
            written += len(text)
            metrics = {"val/loss": level, "val/perplexity": math.exp(level), "train/loss": level - 0.05}
        order = {"format": 1, "key": run.key, "stage": run.stage.name, "kind": run.stage.kind,
                 "task": "language-modeling", "study": "large", "profile": "full", "experiment": run.experiment,
                 "seed": run.seed, "folder": str(folder.path)}  # fmt: skip
        began = 1.7e9 + 600.0 * number
        state = {"format": 1, "status": "done", "updated": began + 500, "started": began, "finished": began + 500,
                 "step": steps, "steps": steps, "progress": 1.0, "device": "cpu"}  # fmt: skip
        result = {"format": 1, "key": run.key, "metrics": metrics,
                  "facts": {"parameters.total": 12000, "parameters.trained": 12000},
                  "time": {"start-up": 2.0, "forward-backward": 450.0, "validation": 30.0},
                  "steps": {"median": 0.045, "p95": 0.05}, "peak": {"rss": 300_000_000, "gpu": 0}}  # fmt: skip
        for path, value in ((folder.order_path, order), (folder.state_path, state), (folder.result_path, result)):
            path.write_text(json.dumps(value))
    return written


def events(steps: int, level: float, noise: random.Random, *, began: float) -> str:
    """Return the events of one run as its worker writes them: a line a step, forty validations."""
    lines = ['{"format":1}', f'{{"e":"start","t":{began},"pid":1,"host":"bench","step":0,"steps":{steps}}}']
    every = max(1, steps // 40)
    for step in range(1, steps + 1):
        loss = level + 5 * math.exp(-step / (0.1 * steps)) + 0.05 * noise.gauss(0, 1)
        now = began + 0.045 * step
        lines.append(
            f'{{"e":"step","t":{now:.4f},"step":{step},"lr":{1e-4 * (1 - step / steps)!r},"tokens":{step * 128}.0,'
            f'"loss":{loss!r},"grad_norm":{noise.random()!r}}}'
        )
        if step % every == 0:
            value = level + 5 * math.exp(-step / (0.1 * steps))
            lines.append(
                f'{{"e":"validation","t":{now:.4f},"step":{step},"seconds":0.5,"values":{{"val/loss":{value!r},'
                f'"val/perplexity":{math.exp(value)!r}}}}}'
            )
    lines.append(f'{{"e":"end","t":{began + 0.045 * steps},"kind":"done","message":""}}')
    return "\n".join(lines) + "\n"


def seconds(command: list[str]) -> tuple[float, float]:
    """Return (wall, processor) seconds of a command."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


READ_BY_LINE = """
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob("events.jsonl"):
    with path.open() as stream:
        for line in stream:
            json.loads(line)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="Folder for the store; a temporary one otherwise.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        study, store = folder / "large.yaml", folder / "lab"
        study.write_text(study_text(options.arms, options.seeds, options.steps))
        size = fill(study, store, options.steps)
        ablab = str(Path(sys.executable).with_name("ablab"))
        report = [ablab, "report", str(study), "--store", str(store)]
        lines = [sys.executable, "-c", READ_BY_LINE, str(store)]
        rounds = [(seconds(report), seconds(lines)) for _ in range(options.rounds)]
        html = store / "studies" / "large" / "full" / "report.html"
        wall, used = (statistics.median(one[i] for one, _ in rounds) for i in (0, 1))
        plain, plain_used = (statistics.median(other[i] for _, other in rounds) for i in (0, 1))
        runs = options.arms * options.seeds
        print(f"{runs} runs x {options.steps:,} logged steps, {size / 1e6:,.0f} MB of events\n")
        print("| what | wall, s | processor, s | HTML, MB |")
        print("|---|--:|--:|--:|")
        print(f"| `ablab report` (bars: 5 s, 10 MB) | {wall:.2f} | {used:.2f} | {html.stat().st_size / 1e6:.2f} |")
        print(f"| only reading the events, `json` line by line | {plain:.2f} | {plain_used:.2f} | |")
        print(f"| ratio | {wall / plain:.2f} | {used / plain_used:.2f} | |")
        if html.stat().st_size > BAR_BYTES:
            sys.exit("the report is larger than its bar")


if __name__ == "__main__":
    main()
