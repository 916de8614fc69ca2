"""Training pairs a second of a retriever at batch 64, beside sentence-transformers; and the memory of the loss.

    python benchmarks/retrieval_train.py --peer ENV/bin/python [--rounds 3] [--steps 8] [--precision fp32] [--frozen]
    python benchmarks/retrieval_train.py --memory

ENV is an environment of its own with sentence-transformers 6 and the same torch. Both train the same retriever (two
CLIP towers, recurrent fusion, 32 vectors of 128) from equal weights on the generated set, at equal precision, with
AdamW, a cosine schedule and clipping: Ablab with its loop, sentence-transformers with MultiVectorEncoderTrainer and
MultiVectorMultipleNegativesRankingLoss over a module that has transformers' towers as they are and the fusion as its
formula stands, and does in the collator what its own Transformer module does: transformers' fast tokenizer, and CLIP's
image processor over decoded images.
Processes take turns; a ratio is of one round, and their median with its range is told. Times leave out start-up and
the first two steps. Pairs a processor second are told beside: on a machine that others use, they are what holds.

Memory is the peak of the process while the loss of 1,024 queries with 1,024 passages runs forward and backward, beyond
what it held before, against the naive tensor of 1,024 x 1,024 x 32 x 32 numbers.

Bars: at least 1.2 x the pairs a second, and at most a tenth of the naive tensor.
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
from functools import partial
from pathlib import Path
from typing import Any

BATCH, WARM, TOKENS = 64, 2, 40
#: Layers, width and side of the images of both towers: the laptop profile's, and larger ones.
TOWERS = {"small": (4, 64, 48), "large": (6, 128, 96)}


def sections(towers: str) -> dict[str, Any]:
    """Return the sections both train from."""
    from ablab.tasks.retrieval.sections import Loss, Model, Towers

    layers, width, side = TOWERS[towers]
    shared = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
    }
    text = {"model_type": "clip_text_model", "max_position_embeddings": TOKENS, **shared}
    vision = {"model_type": "clip_vision_model", "image_size": side, "patch_size": 8, **shared}
    return {
        "towers": Towers(text={"config": text}, vision={"config": vision}, tokens=TOKENS),
        "model": Model(width=width, heads=4, dropout=0.0, cells="shared"),
        "loss": Loss(temperature=1.0),
    }


def prepare(folder: Path, towers: str) -> None:
    """Write the generated set, once."""
    from ablab.tasks.retrieval.preparation import prepare as write
    from ablab.tasks.retrieval.sections import Data

    # Images stay files: both decode them as they train, as they must where a set does not fit into memory.
    tokenizer, side = {"name": "bpe", "vocabulary": 2048}, TOWERS[towers][2]
    data = Data(source="mini-m2kr", subset="evqa", image_size=side, tokenizer=tokenizer, cache_images=False)
    write(data, _context(folder, kind="prepare"))


def _context(folder: Path, **order: Any) -> Any:
    """Return as much of a worker's context as the stages ask for."""
    from contextlib import nullcontext
    from types import SimpleNamespace

    from ablab.contract.order import Numerics, Order, Resources

    fields = {"key": "k", "stage": "s", "task": "retrieval", "study": "b", "profile": "full", "experiment": "A"}
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(
        order=Order(**{**fields, "folder": str(folder), "seed": 1, "resources": Resources(), **order}),
        folder=folder,
        numerics=Numerics(),
        artifacts=folder / "artifacts",
        checkpoints=folder / "checkpoints",
        event=lambda *_, **__: None,
        flush=lambda: None,
        progress=lambda *_, **__: None,
        state=lambda **_: None,
        time=lambda _: nullcontext(),
        stop_requested=lambda: False,
    )


def _parameters(steps: int, precision: str, frozen: bool) -> Any:
    from ablab.tasks.retrieval.config import RetrievalTrain

    still = {"text": {"mode": "frozen"}, "vision": {"mode": "frozen"}} if frozen else {}
    return RetrievalTrain(
        steps=steps,
        batch=BATCH,
        precision=precision,
        parts=still,
        optimizer={"learning_rate": 1e-4},
        schedule={"warmup": 0},
        checkpoints={"best": 0},
        log_every=1000,
    )


def _task(folder: Path, parameters: Any, towers: str) -> Any:
    from ablab.contract.order import Input
    from ablab.tasks.retrieval.task import Retrieval

    given = Input(reference="prepare", stage="prepare", kind="prepare", key="p", path=str(folder))
    return Retrieval(sections(towers), inputs=[given], parameters=parameters)


def clocks() -> tuple[float, float]:
    """Return wall and processor seconds."""
    return time.perf_counter(), time.process_time()


def rates(steps: int, began: tuple[float, float], ended: tuple[float, float]) -> tuple[float, float]:
    """Return pairs a wall second and a processor second."""
    return steps * BATCH / (ended[0] - began[0]), steps * BATCH / (ended[1] - began[1])


def ours(folder: Path, *, steps: int, precision: str, frozen: bool, towers: str) -> tuple[float, float]:
    """Train with the loop and return pairs a second."""
    import torch

    from ablab.training.batches import Prefetcher
    from ablab.training.distribution import World
    from ablab.training.loop import Trainer

    parameters = _parameters(steps + WARM, precision, frozen)
    code, run = _task(folder, parameters, towers), Path(tempfile.mkdtemp())
    trainer = Trainer(
        code, parameters, _context(run, kind="train"), world=World(), device=torch.device("cpu"),
        direction=lambda _: "lower",
    )  # fmt: skip
    began = clocks()
    with Prefetcher(trainer._make_batch, 0, trainer.steps) as batches:
        for step in range(trainer.steps):
            if step == WARM:
                began = clocks()
            trainer._step(next(batches))
    return rates(steps, began, clocks())


def plain_fusion(fusion: Any, text: Any, image: Any) -> Any:
    """Return what a fusion gives, written as its formula stands (arXiv 2503.01980), with its weights."""
    import torch
    import torch.nn.functional as F

    def attend(layer: Any, state: Any, tokens: Any, valid: Any) -> Any:
        heads = [x.unflatten(2, (layer.heads, -1)).transpose(1, 2) for x in
                 (layer.query(state), layer.key(tokens), layer.value(tokens))]  # fmt: skip
        mask = None if valid is None else valid[:, None, None, :]
        return layer.out(F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2))

    cell, state = fusion.cell, fusion.state.expand(len(text.present), -1, -1)
    has_text, has_image = text.present[:, None, None], image.present[:, None, None]
    for words, patches, text_map, image_map in zip(
        text.states, image.states, fusion.text_maps, fusion.image_maps, strict=True
    ):
        q = state + fusion.ids
        n = cell.state_norm(q)
        res = q + attend(cell.own, n, n, None)
        t = attend(cell.text, n, cell.text_norm(text_map(words)), text.valid)
        v = attend(cell.image, n, cell.image_norm(image_map(patches)), None)
        gate_t = torch.sigmoid(cell.text_gate(t)) * has_text
        gate_v = torch.sigmoid(cell.image_gate(v)) * has_image
        told = F.linear(t, cell.text_forget.weight) * has_text
        forget = torch.sigmoid(told + cell.image_forget(v) * has_image + cell.text_forget.bias)
        state = res * forget + t * gate_t + v * gate_v
        state = state + cell.mlp(cell.mlp_norm(state))
    return F.normalize(fusion.head(state), dim=-1)


def peer(folder: Path, *, steps: int, precision: str, frozen: bool, towers: str) -> tuple[float, float]:
    """Train with sentence-transformers and return pairs a second."""
    import datasets
    import torch
    from PIL import Image
    from sentence_transformers import MultiVectorEncoder, MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
    from sentence_transformers.base.modules.input_module import InputModule
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
    from transformers import TrainerCallback
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from ablab.tasks.retrieval import building

    datasets.disable_progress_bars()
    # Its towers are as transformers has them, not in blocks.
    building.use_blocks = lambda tower: tower
    side = TOWERS[towers][2]
    black = Image.new("RGB", (side, side))
    code = _task(folder, _parameters(1, precision, frozen), towers)
    retriever = code.model(seed=1)
    retriever.fusion.forward = partial(plain_fusion, retriever.fusion)
    # The processor has normalised already.
    retriever.vision.model.mean.zero_()
    retriever.vision.model.std.fill_(1.0)
    if frozen:
        retriever.text.requires_grad_(False)
        retriever.vision.requires_grad_(False)

    class Items(InputModule):
        """Rows of queries and passages to the retriever's vectors."""

        tokenizer = None
        modalities = ["text"]  # noqa: RUF012 - what the base class has

        def __init__(self) -> None:
            super().__init__()
            self.retriever = retriever
            self.words = words_of(code)
            size = {"height": side, "width": side}
            self.looks = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=size)

        def preprocess(self, inputs: Any, prompt: str | None = None, **more: Any) -> dict[str, Any]:
            rows = [json.loads(row) for row in inputs]
            words = self.words(
                [row["text"] or "" for row in rows],
                padding=True,
                truncation=True,
                max_length=TOKENS,
                return_tensors="pt",
            )
            pictures = code.pairs.pictures
            images = [
                black if row["image"] is None else pictures._open.open(pictures.names[row["image"]]) for row in rows
            ]
            return {
                "input_ids": words["input_ids"],
                "mask": words["attention_mask"].bool(),
                "pixels": self.looks(images, return_tensors="pt")["pixel_values"],
                "text": torch.tensor([float(row["text"] is not None) for row in rows]),
                "image": torch.tensor([float(row["image"] is not None) for row in rows]),
            }

        def forward(self, features: dict[str, Any], **more: Any) -> dict[str, Any]:
            vectors = self.retriever.encode("query", {**features, "ids": features["input_ids"]})
            everything = torch.ones(vectors.shape[:2], dtype=torch.int64, device=vectors.device)
            return {**features, "token_embeddings": vectors, "attention_mask": everything}

        def save(self, *_: Any, **__: Any) -> None:
            return None

        def get_config_dict(self) -> dict[str, Any]:
            return {}

    pairs = code.pairs
    rows = list(pairs.queries("train"))[: (steps + WARM) * BATCH]
    columns = {
        "query": [json.dumps({key: row[key] for key in ("text", "image")}) for row in rows],
        "positive": [
            json.dumps({k: pairs.passages[row["positives"][0]][k] for k in ("text", "image")}) for row in rows
        ],
    }
    times: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        """Notes when every step ended."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(clocks())

    model = MultiVectorEncoder(modules=[Items()], device="cpu")
    arguments = MultiVectorEncoderTrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        max_steps=steps + WARM,
        learning_rate=1e-4,
        lr_scheduler_type="cosine",
        bf16=precision == "bf16",
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = MultiVectorEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(columns),
        loss=MultiVectorMultipleNegativesRankingLoss(model),
        callbacks=[Clock()],
    )
    trainer.train()
    return rates(steps, times[WARM - 1], times[-1])


def words_of(code: Any) -> Any:
    """Return the prepared tokenizer as one of transformers."""
    from transformers import PreTrainedTokenizerFast

    from ablab.tasks.retrieval.preparation import TOKENIZER

    end = "<|endoftext|>"
    file = str(code.pairs.folder / TOKENIZER)
    return PreTrainedTokenizerFast(tokenizer_file=file, eos_token=end, pad_token=end)


def memory() -> dict[str, float]:
    """Return the peak bytes of the loss at batch 1,024 beyond what was held, and the naive tensor's."""
    import torch

    from ablab.models.contrastive import cross_entropy
    from ablab.models.maxsim import maxsim

    torch.set_num_threads(1)
    sides = [torch.nn.functional.normalize(torch.randn(1024, 32, 128), dim=2).requires_grad_() for _ in range(2)]
    torch.randn(512, 512) @ torch.randn(512, 512)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own = torch.arange(1024)
    cross_entropy(maxsim(*sides), own, torch.zeros(1024, 1024, dtype=torch.bool)).mean().backward()
    used = 1024.0 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    naive = 4.0 * 1024 * 1024 * 32 * 32
    return {"bytes": used, "naive": naive, "share": used / naive}


def child(which: str, arguments: argparse.Namespace, python: str, folder: Path) -> tuple[float, float]:
    """Run one side in a process of its own."""
    command = [python, __file__, "--child", which, "--folder", str(folder), "--steps", str(arguments.steps),
               "--precision", arguments.precision, "--towers", arguments.towers,
               *(["--frozen"] if arguments.frozen else [])]  # fmt: skip
    source = str(Path(__file__).parents[1] / "src")
    env = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "PYTHONPATH": source}
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if out.returncode:
        sys.exit(out.stderr[-2000:])
    wall, processor = json.loads(out.stdout.strip().splitlines()[-1])
    return wall, processor


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="python of an environment with sentence-transformers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--towers", choices=list(TOWERS), default="small")
    parser.add_argument("--frozen", action="store_true", help="towers do not train")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--child", choices=["ours", "peer"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(memory()))
    elif arguments.child:
        run = ours if arguments.child == "ours" else peer
        found = run(
            Path(arguments.folder), steps=arguments.steps, precision=arguments.precision, frozen=arguments.frozen,
            towers=arguments.towers,
        )  # fmt: skip
        print(json.dumps(found))
    else:
        if not arguments.peer:
            parser.error("name the peer's python with --peer")
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Let both take turns and print what they reach."""
    ratios: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), arguments.towers)
        for _ in range(arguments.rounds):
            mine = child("ours", arguments, sys.executable, Path(name))
            theirs = child("peer", arguments, arguments.peer, Path(name))
            ratios.append((mine[0] / theirs[0], mine[1] / theirs[1]))
            for what, place in (("wall", 0), ("processor", 1)):
                print(
                    f"{what:>9}: Ablab {mine[place]:6.1f} pairs/s, peer {theirs[place]:6.1f}: {ratios[-1][place]:.2f} x"
                )
    for what, values in zip(("wall", "processor"), zip(*ratios, strict=True), strict=True):
        print(f"{what:>9}: median {statistics.median(values):.2f} x ({min(values):.2f} to {max(values):.2f}); bar 1.2")


if __name__ == "__main__":
    main()
