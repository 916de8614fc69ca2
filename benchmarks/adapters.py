"""Memory, checkpoint and time of finetuning a vision-language model through adapters, beside training it whole.

    python benchmarks/adapters.py [--steps 3] [--threads 2] [--modes full lora qlora]

One model of the size of SmolLM2-135M behind a CLIP-B-like tower, loaded from a folder as if downloaded, trained by the
lab's own loop on the same batches; each mode in a process of its own. The tower is frozen throughout, as in LLaVA's
finetune. Memory is the process's peak beyond its libraries, apart for building the model (loading it in full precision,
quantising it) and for the steps; a checkpoint holds weights and optimizer.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

IMAGE, BATCH, WORDS = 31_999, 2, 60
LLM = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152, "tie_word_embeddings": True,
}  # fmt: skip
TOWER = {
    "model_type": "clip_vision_model", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 6,
    "num_attention_heads": 12, "image_size": 112, "patch_size": 14,
}  # fmt: skip
PARTS = {
    "full": {"llm": {"mode": "full"}},
    "lora": {"llm": {"mode": "lora", "rank": 16, "alpha": 32}},
    "qlora": {"llm": {"mode": "qlora", "rank": 16, "alpha": 32}},
}


class Samples:
    """Conversations about an image each: random words, of which the second half is supervised."""

    samples = 64

    def __init__(self, image_tokens: int) -> None:
        self._image_tokens = image_tokens

    def order(self, seed: int, epoch: int) -> np.ndarray:
        return np.arange(self.samples)

    def batch(self, ids: np.ndarray, *, seed: int, step: int) -> dict[str, Any]:
        import torch

        drawn = [np.random.default_rng(int(i)) for i in ids]
        words = np.stack([one.integers(3, 30_000, WORDS) for one in drawn])
        tokens = np.concatenate([np.full((len(ids), self._image_tokens), IMAGE), words], axis=1)
        labels = tokens.copy()
        labels[:, : self._image_tokens + WORDS // 2] = -100
        pixels = np.stack([one.standard_normal((3, 112, 112), np.float32) for one in drawn])
        return {"ids": torch.from_numpy(tokens), "labels": torch.from_numpy(labels), "pixels": torch.from_numpy(pixels)}

    def weight(self, batch: dict[str, Any]) -> float:
        return float((batch["labels"] != -100).sum())


class Code:
    """What the loop asks of a task."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def model(self, *, seed: int) -> Any:
        from ablab.contract.models import ModelReference
        from ablab.models.vision_language import build_vision_language

        named = {part: ModelReference(name=str(self._folder / part)) for part in ("llm", "tower")}
        made = build_vision_language(**named, image_token=IMAGE, seed=seed)
        for parameter in made.parameters():  # out of the file's pages, which would count as ours while any is used
            parameter.data = parameter.data.clone()
        return made

    def data(self, split: str) -> Samples:
        return Samples(64)

    def losses(self, model: Any, batch: dict[str, Any]) -> Any:
        from ablab.training.task import Losses

        total = model(batch["ids"], pixels=batch["pixels"], labels=batch["labels"])
        return Losses(total=total, weight=float((batch["labels"] != -100).sum()))

    def metrics(self, split: str, totals: dict[str, float], weight: float) -> dict[str, float]:
        return {f"{split}/loss": totals["loss"] / weight}

    def facts(self, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        return {}


class Context:
    """A worker, as far as the loop needs one."""

    def __init__(self, folder: Path) -> None:
        from ablab.contract.order import Numerics, Order

        self.folder = folder
        self.order = Order(
            key="k", stage="train", kind="train", task="t", study="s", profile="p", experiment="A", folder=str(folder)
        )
        self.numerics = Numerics()
        self.checkpoints.mkdir(parents=True)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def event(self, e: str, /, **values: Any) -> None: ...

    def flush(self) -> None: ...

    def state(self, **fields: Any) -> None: ...

    def stop_requested(self) -> bool:
        return False

    def time(self, name: str) -> Any:
        from contextlib import nullcontext

        return nullcontext()


def peak() -> int:
    """Return the most memory this process held since the last `forget`, in bytes (a child inherits `ru_maxrss`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def forget() -> None:
    """Let the peak begin anew at what is held now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def child(mode: str, folder: Path, steps: int, threads: int) -> None:
    """Train in one mode and print what it took."""
    import torch

    from ablab.contract.training import Train
    from ablab.training.distribution import World
    from ablab.training.loop import Trainer

    torch.set_num_threads(threads)
    import peft  # noqa: F401 - libraries are no part of what is measured
    import transformers.models.clip.modeling_clip
    import transformers.models.llama.modeling_llama  # noqa: F401

    if mode == "qlora":
        import bitsandbytes  # noqa: F401
    forget()
    libraries = peak()
    code = Code(folder)
    parameters = Train.model_validate({
        "steps": steps, "batch": BATCH, "precision": "fp32", "optimizer": {"learning_rate": 2e-5},
        "parts": {"tower": {"mode": "frozen"}, **PARTS[mode]}, "checkpoints": {"best": 0, "seconds": 1e9},
    })  # fmt: skip
    context: Any = Context(folder / mode)
    trainer = Trainer(
        code, parameters, context, world=World(), device=torch.device("cpu"), direction=lambda name: "lower"
    )
    loaded = peak()
    forget()
    seconds = []
    for step in range(steps):
        began = time.perf_counter()
        trainer.one_step(step)
        seconds.append(time.perf_counter() - began)
    trained = peak()
    trainer.keeper.save(trainer.state)
    size = sum(path.stat().st_size for path in context.checkpoints.rglob("*") if path.is_file())
    rows = trainer.state.facts["parameters.table"]
    print(json.dumps({
        "mode": mode, "beyond": trained - libraries, "loaded": loaded - libraries, "checkpoint": size,
        "seconds": sorted(seconds)[len(seconds) // 2], "trained": sum(row["trained"] for row in rows),
    }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--modes", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(given.threads))
    if given.child:
        child(given.child, given.folder, given.steps, given.threads)
        return
    with tempfile.TemporaryDirectory() as name:
        from ablab.contract.models import ModelReference
        from ablab.models.hub import load_model

        for part, config, kind in (("llm", LLM, "causal"), ("tower", TOWER, "vision")):
            load_model(ModelReference(config=config), kind=kind, seed=1).save_pretrained(Path(name) / part)
        found = []
        for mode in given.modes:
            command = [sys.executable, __file__, "--child", mode, "--folder", name, "--steps", str(given.steps)]
            command += ["--threads", str(given.threads)]
            # What is freed goes back to the system, so that the peak is of what is held.
            environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    print("| finetune | trains | steps, MiB | of full | building, MiB | checkpoint, MiB | of full | s a step |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    whole = found[0]
    for row in found:
        print(
            f"| {row['mode']} | {row['trained'] / 1e6:.1f}M | {row['beyond'] / 2**20:,.0f} | "
            f"{row['beyond'] / whole['beyond']:.2f} | {row['loaded'] / 2**20:,.0f} | "
            f"{row['checkpoint'] / 2**20:,.0f} | {row['checkpoint'] / whole['checkpoint']:.2f} | {row['seconds']:.1f} |"
        )


if __name__ == "__main__":
    main()
