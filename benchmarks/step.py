"""Training step of Medium-512 (V = 50257, batch 8 x 512): Ablab's against the same model written plainly.

    python benchmarks/step.py [--rounds 5] [--threads 2] [--layers 6] [--only ours-bf16,plain-bf16,...]

The peer (`plain_gpt.py`) is a plain eager loop as nanoGPT writes it, with ordinary cross-entropy over full logits, and
the same with torch.compile. All start from the same weights, see the same batches, drop out with the same
probability. Every variant runs in a process of its own, for its own peak memory, and the processes take turns, one step
each, so that a change in the machine's load meets all alike; a ratio is the median over the rounds, with its range.
Processor seconds are shown beside wall seconds: on a machine that others use, they are what holds.

Bars: bf16 at least 2 x the tokens a second of the plain eager bf16 step, at no more than 0.6 of its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH, CONTEXT, VOCABULARY, WIDTH, HEADS, DROPOUT = 8, 512, 50257, 512, 8, 0.1
VARIANTS = {
    "plain-bf16": "plain eager, bf16",
    "compiled-bf16": "plain torch.compile, bf16",
    "ours-bf16": "Ablab, bf16",
    "plain-fp32": "plain eager, fp32",
    "ours-fp32": "Ablab, fp32",
}


def stepper(variant: str, layers: int) -> Callable[[], float]:
    """Return a function that takes one training step and returns the loss."""
    import torch

    from ablab.models.gpt import GPT, Shape

    kind, precision = variant.split("-")
    shape = Shape(
        vocabulary=VOCABULARY,
        width=WIDTH,
        layers=layers,
        heads=HEADS,
        hidden=4 * WIDTH,
        context=CONTEXT,
        dropout=DROPOUT,
    )
    generator = torch.Generator().manual_seed(7)
    loss_of, update = (_ours if kind == "ours" else _plain)(GPT(shape, seed=1), layers, kind == "compiled")

    def step() -> float:
        tokens = torch.randint(0, VOCABULARY, (BATCH, CONTEXT + 1), generator=generator)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        loss.backward()
        update()
        return loss.item()

    return step


def _ours(model: Any, layers: int, compiled: bool) -> tuple[Callable[..., Any], Callable[[], None]]:
    """Return Ablab's mean loss, and its clipping and update."""
    import torch

    from ablab.contract.training import Optimizer
    from ablab.training.optimizer import build_optimizer, trained_parameters

    parameters = trained_parameters(model)
    settings = Optimizer(learning_rate=3e-4, weight_decay=0.01, decay="all")
    optimizer = build_optimizer(parameters, settings, device=torch.device("cpu"))

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return lambda inputs, targets: model(inputs, targets) / targets.numel(), update


def _plain(model: Any, layers: int, compiled: bool) -> tuple[Callable[..., Any], Callable[[], None]]:
    """Return the loss of a plainly written model of the same weights, and its clipping and update."""
    import torch
    from plain_gpt import PlainGPT

    plain = PlainGPT(vocabulary=VOCABULARY, width=WIDTH, layers=layers, heads=HEADS, context=CONTEXT, dropout=DROPOUT)
    plain.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(plain.parameters(), lr=3e-4, weight_decay=0.01)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return torch.compile(plain) if compiled else plain, update


def serve(variant: str, layers: int, threads: int) -> None:
    """Take one step for every line read, and answer with its seconds, loss and the peak of memory."""
    import torch

    torch.set_num_threads(threads)
    step = stepper(variant, layers)
    for _ in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        loss = step()
        seconds, processor = time.perf_counter() - began, time.process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "processor": processor, "loss": loss, "peak": peak}), flush=True)


class Process:
    """A variant in a process of its own."""

    def __init__(self, variant: str, *, layers: int, threads: int) -> None:
        command = [sys.executable, __file__, "--serve", variant, "--layers", str(layers), "--threads", str(threads)]
        # Idle threads must sleep, or the processes that wait would slow the one whose turn it is.
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def step(self) -> dict[str, float]:
        """Take one step."""
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.child.args} ended with status {self.child.wait()}")
        return dict(json.loads(line))

    def close(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait()


def measure(names: list[str], *, layers: int, threads: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Return the steps of each variant; the first one or two, which warm up, are left out."""
    processes = {name: Process(name, layers=layers, threads=threads) for name in names}
    try:
        for name in names:
            first = processes[name].step()
            print(f"# {name}: first step {first['seconds']:.1f} s, loss {first['loss']:.4f}", file=sys.stderr)
        steps: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for turn in range(rounds + 1):
            for name in names:
                done = processes[name].step()
                if turn:
                    steps[name].append(done)
        return steps
    finally:
        for process in processes.values():
            process.close()


def table(steps: dict[str, list[dict[str, float]]]) -> str:
    """Return a Markdown table; ratios are against the plain eager step of the same precision and of bf16."""
    rows = [
        "| step | tokens/s | times plain, same precision | times plain bf16 | by processor | peak, MiB | of bf16 |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, mine in steps.items():
        speed = BATCH * CONTEXT / statistics.median(step["seconds"] for step in mine)
        peak = max(step["peak"] for step in mine) / 2**20
        same, bf16 = (_ratio(steps.get(f"plain-{kind}"), mine) for kind in (name.split("-")[1], "bf16"))
        base = steps.get("plain-bf16")
        used = _ratio(base, mine, "processor")
        share = f"{peak / max(step['peak'] for step in base) * 2**20:.2f}" if base else ""
        rows.append(f"| {VARIANTS[name]} | {speed:,.0f} | {same} | {bf16} | {used} | {peak:,.0f} | {share} |")
    return "\n".join(rows)


def _ratio(base: list[dict[str, float]] | None, mine: list[dict[str, float]], what: str = "seconds") -> str:
    """Return the median over the rounds of base / mine, with its range."""
    if base is None:
        return ""
    ratios = [theirs[what] / ours[what] for theirs, ours in zip(base, mine, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--only", default=",".join(VARIANTS))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        sys.path.insert(0, str(Path(__file__).parent))
        serve(options.serve, options.layers, options.threads)
        return
    names = [name for name in VARIANTS if name in options.only.split(",")]
    print(table(measure(names, layers=options.layers, threads=options.threads, rounds=options.rounds)))


if __name__ == "__main__":
    main()
