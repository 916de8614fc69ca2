"""What a merge costs: three models of about 1 GB each upon a base, beside mergekit on the same machine.

    python benchmarks/merging.py [--peer ENV/bin/mergekit-yaml] [--folder DIR] [--layers 8] [--rounds 1] [--threads N]

The models are drawn at random. Ours and the peer's runs alternate; each is a whole command, start-up included. Memory
is the resident memory of all processes of a command together, at its peak. Without a peer only ours is measured.
mergekit belongs into an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file

#: Method, its name in mergekit, density, and how many times as fast as mergekit it is to be.
METHODS = (
    ("dare-ties", "dare_ties", 0.1, 3.0),
    ("ties", "ties", 0.2, 5.0),
    ("task-arithmetic", "task_arithmetic", None, 0),
)
MODELS, WEIGHT = ("a", "b", "c"), 0.4
WIDTH, HIDDEN, VOCABULARY = 2048, 5632, 32000


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.norm.weight": (WIDTH,)}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        found[name] = (VOCABULARY, WIDTH)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        found |= {f"{prefix}self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
        found |= {f"{prefix}mlp.{name}_proj.weight": (HIDDEN, WIDTH) for name in ("gate", "up")}
        found[f"{prefix}mlp.down_proj.weight"] = (WIDTH, HIDDEN)
        found |= {f"{prefix}{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")}
    return found


def make_models(folder: Path, *, layers: int) -> int:
    """Write base and models in bf16; return the bytes of one."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "vocab_size": VOCABULARY,
        "intermediate_size": HIDDEN, "num_hidden_layers": layers, "num_attention_heads": 16, "num_key_value_heads": 16,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5, "max_position_embeddings": 2048,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    base = {name: (torch.randn(s, generator=generator) * 0.02).bfloat16() for name, s in shapes(layers).items()}
    for model in ("base", *MODELS):
        own = folder / model
        own.mkdir(parents=True)
        moved = {
            name: value if model == "base" else value + torch.randn(value.shape, generator=generator).bfloat16() * 0.002
            for name, value in base.items()
        }
        save_file(moved, own / "model.safetensors", metadata={"format": "pt"})
        (own / "config.json").write_text(json.dumps(config))
    return sum(value.nbytes for value in base.values())


@dataclass(frozen=True)
class Cost:
    """Of one command: wall and processor seconds, peak bytes of its processes."""

    wall: float
    processor: float
    memory: int


def measure(command: list[str]) -> Cost:
    """Run a command and watch its processes."""
    began, peak = time.perf_counter(), 0
    spent: dict[int, float] = {}
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        resident = 0
        for each in (process, *_children(process)):
            try:
                times = each.cpu_times()
                spent[each.pid] = times.user + times.system
                resident += each.memory_info().rss
            except psutil.Error:
                continue
        peak = max(peak, resident)
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{process.stderr.read().decode()[-2000:]}")
    return Cost(time.perf_counter() - began, sum(spent.values()), peak)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def ours(folder: Path, method: str, density: float | None, threads: int, out: Path) -> list[str]:
    spec = [f"{folder / model}={WEIGHT}" + (f":{density}" if density else "") for model in MODELS]
    models = [word for each in spec for word in ("-m", each)]
    program = [sys.executable, "-m", "ablab.cli.main", "merge", method, "-b", str(folder / "base"), *models]
    return [*program, "-o", str(out), "--threads", str(threads), "--device", "cpu", "--json"]


def theirs(peer: str, folder: Path, method: str, density: float | None, out: Path) -> list[str]:
    parameters = {"weight": WEIGHT} | ({} if density is None else {"density": density})
    models = [{"model": str(folder / model), "parameters": parameters} for model in MODELS]
    config = {"merge_method": method, "base_model": str(folder / "base"), "models": models, "dtype": "bfloat16"}
    path = folder / f"{method}.json"
    path.write_text(json.dumps(config))
    return [peer, str(path), str(out), "--quiet"]


def warm(folder: Path) -> None:
    """Read all models once, so that none is measured on the disk."""
    for file in folder.glob("*/model.safetensors"):
        with file.open("rb") as opened:
            while opened.read(1 << 24):
                pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=None, help="mergekit-yaml of an environment that has it")
    parser.add_argument("--folder", default=None, help="where models are made; a temporary folder by default")
    parser.add_argument("--layers", type=int, default=8, help="8 makes about 1 GB")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--methods", nargs="*", default=[method for method, *_ in METHODS])
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="ablab-merge-"))
    try:
        size = make_models(folder, layers=options.layers)
        largest = VOCABULARY * WIDTH * 2 * (len(MODELS) + 1)
        print(f"{len(MODELS)} models of {size / 1e9:.2f} GB and their base, {options.threads} processes; ", end="")
        print(f"largest set of tensors {largest / 1e6:.0f} MB; load {os.getloadavg()[0]:.1f}\n")
        print("| method | wall, s | processor, s | peak, MB | of the largest set | mergekit | times as fast | bar |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|")
        for method, name, density, bar in METHODS:
            if method in options.methods:
                row(folder, options, method, name, density, bar, largest)
    finally:
        shutil.rmtree(folder)


def row(
    folder: Path, options: argparse.Namespace, method: str, name: str, density: float | None, bar: float, largest: int
) -> None:
    mine: list[Cost] = []
    peers: list[Cost] = []
    for _ in range(options.rounds):
        for costs, command in (
            (mine, ours(folder, method, density, options.threads, folder / "out")),
            (peers, theirs(options.peer, folder, name, density, folder / "out") if options.peer else None),
        ):
            if command is not None:
                warm(folder)
                costs.append(measure(command))
                shutil.rmtree(folder / "out")
    wall, memory = statistics.median(c.wall for c in mine), max(c.memory for c in mine)
    told = [f"{wall:.1f}", f"{statistics.median(c.processor for c in mine):.1f}", f"{memory / 1e6:.0f}"]
    told.append(f"{memory / largest:.2f}")
    if peers:
        other = statistics.median(c.wall for c in peers)
        told.append(f"{other:.1f} s, {statistics.median(c.processor for c in peers):.0f} s, "
                    f"{max(c.memory for c in peers) / 1e6:.0f} MB")  # fmt: skip
        told.append(f"**{other / wall:.1f}**")
    else:
        told += ["", ""]
    print(f"| {method} | " + " | ".join(told) + f" | {f'{bar:g} x' if bar else ''} |", flush=True)


if __name__ == "__main__":
    main()
