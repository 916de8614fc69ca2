"""Tiny models as folders of safetensors files, and the plain definitions of the methods in numpy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ablab.contract.merge import Merge
from ablab.merging.merge import Named, Options, Report, merge_models

#: One tensor of several blocks, one of one dimension, one of a few entries, one of whole numbers.
SHAPES = {"embed.weight": (601, 301), "layer.weight": (40, 30), "layer.bias": (40,), "norm.weight": (7,)}

Tensors = dict[str, Tensor]


def random_tensors(seed: int, *, like: Mapping[str, Tensor] | None = None, scale: float = 0.02) -> Tensors:
    """Random tensors, or those of a model with a task vector added."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(shape, generator=generator) * scale for name, shape in SHAPES.items()}
    if like is None:
        return {**drawn, "positions": torch.arange(5)}
    return {name: like[name] + drawn[name] if name in drawn else like[name] for name in like}


def write_model(
    folder: Path, tensors: Mapping[str, Tensor], *, files: int = 1, dtype: torch.dtype | None = None
) -> Path:
    """Write a model as one or several files, with a configuration and a tokenizer."""
    folder.mkdir(parents=True)
    stored = {
        name: value.to(dtype) if dtype and value.is_floating_point() else value.clone()
        for name, value in tensors.items()
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny", "torch_dtype": "float32"}))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []}))
    (folder / "README.md").write_text("a model card")
    if files == 1:
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = list(stored)
    parts = {f"model-{n + 1:05d}-of-{files:05d}.safetensors": names[n::files] for n in range(files)}
    for file, own in parts.items():
        save_file({name: stored[name] for name in own}, folder / file)
    weight_map = {name: file for file, own in parts.items() for name in own}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def read_model(folder: Path) -> Tensors:
    """Read all tensors of a folder through the library."""
    found: Tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


@pytest.fixture(scope="session")
def originals() -> dict[str, Tensors]:
    """A base and three models tuned from it."""
    base = random_tensors(0, scale=0.5)
    return {"base": base, **{name: random_tensors(n, like=base) for n, name in enumerate("abc", start=1)}}


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory, originals: dict[str, Tensors]) -> Path:
    """Their folders, in fp32."""
    root = tmp_path_factory.mktemp("family")
    for name, tensors in originals.items():
        write_model(root / name, tensors)
    return root


Merging = Callable[..., tuple[Tensors, Report]]


@pytest.fixture
def merge(family: Path, tmp_path: Path) -> Merging:
    """Merge by settings whose models are folders of the family (or elsewhere), and return tensors and report."""
    count = 0

    def run(
        root: Path = family, *, seed: int = 1, options: Options | None = None, **settings: object
    ) -> tuple[Tensors, Report]:
        nonlocal count
        count += 1
        target = tmp_path / f"out{count}"
        target.mkdir()
        made = Merge.model_validate(settings)
        named = [Named(label=name, folder=root / name) for name in made.sources]
        base, models = (None, named) if made.base is None else (named[0], named[1:])
        report = merge_models(made, base=base, models=models, target=target, seed=seed, options=options)
        return read_model(target), report

    return run


def plain(tensor: Tensor) -> np.ndarray:
    """A tensor in fp64."""
    return tensor.double().numpy()
