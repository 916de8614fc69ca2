"""The lab's own cost: a step of the training loop against a step of a bare loop over the same model and batches.

    python benchmarks/overhead.py [--steps 400] [--control] [--json]

Both loops run in one process and take turns step by step, so that a change in the machine's load meets both alike.
What is timed is from one call of the model to the next: for the lab that includes fetching the batch, the dropout
stream, the guard, accumulation, the schedule, logging every ten steps and telling its state; for the bare loop,
slicing the batch, clipping and the same fused AdamW. The bar is 1.01; on a busy machine the median of paired ratios
tells most, and --control shows what is noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ablab.contract.order import Numerics, Order
from ablab.contract.training import Train
from ablab.store.layout import RunFolder
from ablab.training.loop import train
from ablab.training.task import Losses
from ablab.worker.clock import Clock
from ablab.worker.context import WorkerContext
from ablab.worker.stopping import Stop

WIDTH, LAYERS, BATCH, SAMPLES = 512, 4, 128, 4096


class Baton:
    """Lets two loops take turns, and times each of their steps without the waiting."""

    def __init__(self, loops: int) -> None:
        self.turn, self.loops = 0, loops
        self.condition = threading.Condition()
        self.seconds: list[list[float]] = [[] for _ in range(loops)]
        self.processor: list[list[float]] = [[] for _ in range(loops)]
        self.began: list[tuple[float, float] | None] = [None] * loops
        self.left = [False] * loops

    def step(self, me: int) -> None:
        """End the step of loop `me`, let the others do one, and begin the next."""
        now, used = time.perf_counter(), time.thread_time()
        if self.began[me] is not None:
            self.seconds[me].append(now - self.began[me][0])
            self.processor[me].append(used - self.began[me][1])
            self._pass(me)
        with self.condition:
            self.condition.wait_for(lambda: self.turn == me or all(self.left[i] for i in range(self.loops) if i != me))
        self.began[me] = (time.perf_counter(), time.thread_time())

    def leave(self, me: int) -> None:
        """Take no more turns."""
        self.left[me] = True
        self._pass(me)

    def _pass(self, me: int) -> None:
        with self.condition:
            self.turn = (me + 1) % self.loops
            self.condition.notify_all()


class Data:
    """Rows of random numbers in memory."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.samples = SAMPLES
        self.x = rng.normal(size=(SAMPLES, WIDTH)).astype(np.float32)
        self.y = rng.integers(0, WIDTH, size=SAMPLES)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(self.samples)

    def batch(self, ids: np.ndarray, *, seed: int, step: int):
        return {"x": torch.from_numpy(self.x[ids]), "y": torch.from_numpy(self.y[ids])}

    def weight(self, batch) -> float:
        return float(len(batch["y"]))


class Code:
    """The task of both loops; `me` is the loop's place in the baton's round."""

    def __init__(self, baton: Baton, me: int) -> None:
        self.baton, self.me, self.split = baton, me, Data()

    def model(self, *, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        block = [part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(0.1))]
        return nn.Sequential(*block, nn.Linear(WIDTH, WIDTH))

    def data(self, split: str) -> Data:
        return self.split

    def losses(self, model: nn.Module, batch) -> Losses:
        if model.training:
            self.baton.step(self.me)
        total = F.cross_entropy(model(batch["x"]), batch["y"], reduction="sum")
        return Losses(total=total, weight=float(len(batch["y"])))

    def metrics(self, split: str, totals, weight: float) -> dict[str, float]:
        return {f"{split}/loss": totals["loss"] / weight}

    def facts(self, model: nn.Module, batch) -> dict[str, object]:
        return {}


def lab(baton: Baton, steps: int, folder: Path) -> None:
    """Train through the loop, with a real run folder."""
    parameters = {"steps": steps, "batch": BATCH, "validation": {"batches": 1}, "checkpoints": {"seconds": 1e9}}
    run = RunFolder(folder / "train-overhead").create()
    order = Order(
        key="overhead", stage="train", kind="train", task="t", study="s", profile="p", experiment="A", seed=1,
        folder=str(run.path),
    )  # fmt: skip
    context = WorkerContext(
        order,
        run,
        attempt=run.attempt(1).create(),
        numerics=Numerics(precision="fp32"),
        clock=Clock(time.monotonic()),
        stop=Stop(),
    )
    train(Code(baton, 1), Train.model_validate(parameters), context)
    context.close()
    baton.leave(1)


def bare(baton: Baton, steps: int, me: int = 0) -> None:
    """Train as one writes it by hand."""
    code = Code(baton, me)
    model, data = code.model(seed=1), code.data("train")
    # The two groups that everybody writes: matrices decay, the rest does not.
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=3e-4, fused=True)
    order = np.concatenate([data.order(1, epoch) for epoch in range(1 + steps * BATCH // SAMPLES)])
    model.train()
    for step in range(steps):
        batch = data.batch(order[step * BATCH : (step + 1) * BATCH], seed=1, step=step)
        losses = code.losses(model, batch)
        (losses.total / losses.weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    baton.leave(me)


def measure(steps: int, *, control: bool = False) -> dict[str, float]:
    """Return medians in seconds and their ratio; as a control, of the bare loop against itself."""
    baton = Baton(2)
    with tempfile.TemporaryDirectory() as folder:
        work = (lambda: bare(baton, steps, 1)) if control else (lambda: lab(baton, steps, Path(folder)))
        other = threading.Thread(target=work)
        other.start()
        bare(baton, steps)
        other.join()
    warm = min(len(seconds) for seconds in baton.seconds) // 10
    found: dict[str, float] = {"steps": len(baton.seconds[1]) - warm}
    for kind, seconds in (("wall", baton.seconds), ("processor", baton.processor)):
        plain, ours = seconds[0][warm:], seconds[1][warm:]
        found |= {f"{kind}.bare": statistics.median(plain), f"{kind}.lab": statistics.median(ours)}
        found[f"{kind}.ratio"] = found[f"{kind}.lab"] / found[f"{kind}.bare"]
        found[f"{kind}.paired"] = statistics.median(b / a for a, b in zip(plain, ours, strict=False))
    return found


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--control", action="store_true", help="time the bare loop against itself: the noise")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(arguments.steps, control=arguments.control)
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"medians of {found['steps']} steps, bar 1.01\n")
    print("| time of a step | bare loop, ms | lab, ms | ratio of medians | median of paired ratios |")
    print("|---|---|---|---|---|")
    for kind, name in (("wall", "wall clock"), ("processor", "processor, training thread")):
        bare, lab = found[f"{kind}.bare"] * 1e3, found[f"{kind}.lab"] * 1e3
        print(f"| {name} | {bare:.2f} | {lab:.2f} | {found[f'{kind}.ratio']:.4f} | {found[f'{kind}.paired']:.4f} |")


if __name__ == "__main__":
    main()
