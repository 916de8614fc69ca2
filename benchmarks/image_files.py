"""An epoch of finetuning from image files beside one from decoded tensors: what reading pictures costs.

    python benchmarks/image_files.py [--rounds 5]

The same model takes the same steps over the same conversations through the lab's own loop of batches (`Prefetcher`):
once with pictures read from a tar file, decoded, padded and framed as they are needed, once with all of them decoded in
memory beforehand. The two take turns; the ratio is that of the medians.

Bar: 1.05.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROWS, BATCH = 320, 8
#: Pictures of photographs' size make decoding cost what it costs in earnest.
SIDE, SIZE = 640, 112
LLM = {
    "model_type": "llama", "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 4, "vocab_size": 4096, "max_position_embeddings": 512,
}  # fmt: skip
TOWER = {
    "model_type": "clip_vision_model", "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6,
    "num_attention_heads": 4, "image_size": SIZE, "patch_size": 14,
}  # fmt: skip


def write_pictures(path: Path) -> None:
    import io
    import tarfile

    import numpy as np
    from PIL import Image

    drawn = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        for number in range(ROWS):
            small = Image.fromarray(drawn.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            encoded = io.BytesIO()
            small.resize((SIDE, SIDE * 3 // 4), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=90)
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = encoded.tell()
            encoded.seek(0)
            archive.addfile(member, encoded)


def data(source: Any, framing: Any, *, decoded: bool) -> Any:
    """Return conversations about the pictures as the loop reads them."""
    import numpy as np

    from ablab.data.images import load_all
    from ablab.data.templates import Encoded
    from ablab.tasks.vision_language.batches import Sample

    tokens = (SIZE // 14) ** 2
    drawn = np.random.default_rng(1)
    rows = []
    for _ in range(ROWS):
        ids = np.concatenate([np.full(tokens, 4095), drawn.integers(10, 4000, int(drawn.integers(20, 80)))])
        labels = np.where(np.arange(len(ids)) < tokens + 8, -100, ids)
        rows.append(Encoded(ids=ids.astype(np.int64), labels=labels.astype(np.int64), images=("x",)))
    known = {i: framing.frame(source.open(f"{i}.jpg")) for i in range(ROWS)} if decoded else {}

    def picture(name: str) -> Any:
        return framing.frame(source.open(name))

    def batch(ids: Any, *, seed: int, step: int) -> Any:
        samples = []
        for i in map(int, ids):
            pixels = known[i] if decoded else load_all(picture, [f"{i}.jpg"])[0]
            samples.append(Sample(encoded=rows[i], pixels=pixels[None]))
        return {"samples": samples}

    return SimpleNamespace(
        samples=ROWS,
        order=lambda seed, epoch: np.random.default_rng(epoch).permutation(ROWS),
        batch=batch,
        weight=lambda made: float(sum(sample.encoded.targets for sample in made["samples"])),
    )


def epoch(model: Any, found: Any, framing: Any, number: int) -> float:
    """Train one epoch and return its seconds."""
    import torch

    from ablab.data.images import normalise
    from ablab.tasks.vision_language.batches import collate
    from ablab.training.batches import Prefetcher, Stream, make_batch

    stream = Stream(found, seed=number, batch=BATCH)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    began = time.perf_counter()
    with Prefetcher(lambda step: make_batch(stream, step, micro=BATCH), 0, ROWS // BATCH) as batches:
        for made in batches:
            rows = collate(made.micros[0]["samples"], pad=0, row_tokens=512)
            pixels = normalise(rows.pixels, framing)
            packed = rows.packed
            total = model(
                packed.ids, pixels=pixels, attention_mask=packed.mask(), position_ids=packed.positions,
                labels=packed.labels,
            )  # fmt: skip
            (total / made.weight).backward()
            optimizer.step()
            optimizer.zero_grad()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    settings = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    from ablab.contract.models import ModelReference
    from ablab.data.images import Framing, ImageSource
    from ablab.models.vision_language import build_vision_language

    model = build_vision_language(
        llm=ModelReference(config=LLM), tower=ModelReference(config=TOWER), image_token=4095, seed=0
    )
    model.tower.requires_grad_(False)
    model.train()
    framing = Framing(size=SIZE)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "pictures.tar")
        source = ImageSource(Path(folder) / "pictures.tar")
        files, tensors = (data(source, framing, decoded=decoded) for decoded in (False, True))
        began = time.perf_counter()
        for number in range(ROWS):
            framing.frame(source.open(f"{number}.jpg"))
        decoding = time.perf_counter() - began
        epoch(model, tensors, framing, 0)
        seconds: dict[str, list[float]] = {"files": [], "tensors": []}
        for number in range(settings.rounds):
            for name, found in (("files", files), ("tensors", tensors)):
                seconds[name].append(epoch(model, found, framing, number))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["files"] / medians["tensors"]
    print(f"{ROWS} JPEGs of {SIDE} x {SIDE * 3 // 4}: decoding and framing alone {decoding:.2f} s")
    for name, value in medians.items():
        print(f"epoch from {name}: {value:.2f} s, {ROWS / value:.1f} samples/s (range {min(seconds[name]):.2f} to "
              f"{max(seconds[name]):.2f})")  # fmt: skip
    print(f"files / tensors: {ratio:.3f} (bar 1.05)")


if __name__ == "__main__":
    main()
