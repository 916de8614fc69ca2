"""Loading and planning a matrix: seconds for 1,000 to 100,000 experiments x 3 seeds, and beside plain ways of doing it.

    python benchmarks/plan.py [--sizes 1000 10000 100000] [--repeat 3] [--json]

A study file with a matrix of learning rates and widths is loaded and planned against an empty store; each size runs in
a process of its own, which also does the same work in two plain ways:

- floor: one hash of 200 bytes, one small object and one dictionary entry a run, and nothing else
- plain: the parameters of each run dumped by pydantic, written as sorted JSON and hashed, as a script would do it

Figures are processor seconds, the best of the repeats, so that a busy machine disturbs them less. The bar is 1 s for
10,000 experiments (60,001 runs), and no more than ten times that for ten times as many.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablab.plan.graph import Plan
from ablab.plan.planning import make_plan
from ablab.store.layout import Store
from ablab.study.loading import load
from ablab.study.schema import Study

STUDY = """
name: matrix
task: language-modeling
seeds: [1, 2, 3]
defaults:
  data: {{source: austen}}
  pipeline: {{train: {{steps: 1000}}}}
matrix:
  axes:
    pipeline.train.optimizer.learning_rate: {rates}
    model.layers: {layers}
"""


@dataclass(slots=True)
class Plain:
    key: str
    stage: object
    seed: int
    inputs: list[str]


def write_study(path: Path, experiments: int) -> None:
    layers = 100
    rates = [round(1e-5 * (1 + place), 9) for place in range(experiments // layers)]
    path.write_text(STUDY.format(rates=json.dumps(rates), layers=list(range(1, layers + 1))))


def floor(study: Study, plan: Plan) -> dict[str, Plain]:
    text, made = b"x" * 200, {}
    for number in range(len(plan.runs)):
        key = hashlib.sha256(b"%d%b" % (number, text)).hexdigest()[:20]
        made[key] = Plain(key, study, 1, [key])
    return made


def plain(study: Study, _: Plan) -> dict[str, Plain]:
    made: dict[str, Plain] = {}
    for seed in study.seeds:
        for experiment in study.experiments.values():
            keys: dict[str, str] = {}
            for stage in experiment.stages:
                content = {
                    "kind": stage.kind,
                    "parameters": stage.parameters.model_dump(mode="json"),
                    "sections": {name: block.model_dump(mode="json") for name, block in stage.sections.items()},
                    "inputs": [keys[need.stage] for need in stage.needs],
                    "seed": seed if stage.spec.seeded else None,
                }
                key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
                keys[stage.name] = key
                made.setdefault(key, Plain(key, stage, seed, list(keys.values())))
    return made


def best(action: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    seconds, result = float("inf"), None
    for _ in range(repeat):
        result = None
        began = time.process_time()
        result = action()
        seconds = min(seconds, time.process_time() - began)
    return seconds, result


def measure(experiments: int, repeat: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matrix.yaml"
        write_study(path, experiments)
        # The first of everything pays for imports and caches, which do not grow with the matrix.
        write_study(Path(folder) / "small.yaml", 100)
        make_plan(load(Path(folder) / "small.yaml"), Store(Path(folder) / "lab"))
        loading, study = best(lambda: load(path), repeat)
        planning, plan = best(lambda: make_plan(study, Store(Path(folder) / "lab")), repeat)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        lowest, _ = best(lambda: floor(study, plan), repeat)
        ordinary, _ = best(lambda: plain(study, plan), 1)
    return {
        "experiments": experiments,
        "runs": len(plan.runs),
        "load": loading,
        "plan": planning,
        "sum": loading + planning,
        "run_us": 1e6 * planning / len(plan.runs),
        "floor": planning / lowest,
        "plain": ordinary / planning,
        "mib": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.repeat)))
        return
    rows = []
    for size in options.sizes:
        command = [sys.executable, __file__, "--one", str(size), "--repeat", str(options.repeat)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print("| experiments | runs | load, s | plan, s | sum, s | µs a run | plan / floor | plain / plan | growth | MiB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for before, row in zip([None, *rows], rows, strict=False):
        growth = "" if before is None else f"{row['sum'] / before['sum']:.1f}x for {row['runs'] / before['runs']:.1f}x"
        print(
            f"| {row['experiments']:,.0f} | {row['runs']:,.0f} | {row['load']:.2f} | {row['plan']:.2f} | "
            f"{row['sum']:.2f} | {row['run_us']:.1f} | {row['floor']:.1f} | {row['plain']:.1f} | {growth} | "
            f"{row['mib']:.0f} |"
        )


if __name__ == "__main__":
    main()
