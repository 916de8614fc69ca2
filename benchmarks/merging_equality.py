"""Whether merges equal mergekit's where the definitions agree: the same files through both, and the differences.

    python benchmarks/merging_equality.py --peer ENV/bin/mergekit-yaml

mergekit belongs into an environment of its own. Small models in fp32, so that only definitions differ and not rounding;
random methods are compared at density 1, where nothing is drawn, and by their mean.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ablab.contract.merge import Merge
from ablab.merging.merge import Named, merge_models

SHAPES = {
    "model.embed_tokens.weight": (64, 32), "model.norm.weight": (32,), "lm_head.weight": (64, 32),
    **{f"model.layers.0.self_attn.{name}_proj.weight": (32, 32) for name in "qkvo"},
    "model.layers.0.mlp.gate_proj.weight": (48, 32), "model.layers.0.mlp.up_proj.weight": (48, 32),
    "model.layers.0.mlp.down_proj.weight": (32, 48), "model.layers.0.input_layernorm.weight": (32,),
    "model.layers.0.post_attention_layernorm.weight": (32,),
}  # fmt: skip
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 64, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64, "tie_word_embeddings": False, "torch_dtype": "float32",
}  # fmt: skip
WEIGHTS = {"a": 0.6, "b": 0.3, "c": -0.2}

#: Our method and settings, mergekit's method and parameters, and whether every number is to be equal.
CASES: tuple[tuple[str, dict[str, Any], str, dict[str, Any], bool], ...] = (
    ("linear", {}, "linear", {}, True),
    ("linear", {"normalize": False}, "linear", {"normalize": False}, True),
    ("slerp", {}, "slerp", {"t": 0.3}, True),
    ("task-arithmetic", {}, "task_arithmetic", {}, True),
    ("task-arithmetic", {"scale": 0.5, "normalize": True}, "task_arithmetic", {"lambda": 0.5, "normalize": True}, True),
    ("ties", {"density": 0.2}, "ties", {"density": 0.2}, True),
    ("ties", {"density": 0.5, "normalize": False}, "ties", {"density": 0.5, "normalize": False}, True),
    ("dare-ties", {"density": 1.0}, "dare_ties", {"density": 1.0}, True),
    ("dare-linear", {"density": 1.0}, "dare_linear", {"density": 1.0}, True),
    ("dare-linear", {"density": 0.5, "rescale": "l1"}, "dare_linear", {"density": 0.5}, False),
    ("della", {"density": 0.5, "epsilon": 0.2, "rescale": "l1"}, "della", {"density": 0.5, "epsilon": 0.2}, False),
)


def make(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    for model in ("base", *WEIGHTS):
        (folder / model).mkdir()
        moved = {
            name: value if model == "base" else value + 0.05 * torch.randn(value.shape, generator=generator)
            for name, value in base.items()
        }
        save_file(moved, folder / model / "model.safetensors", metadata={"format": "pt"})
        (folder / model / "config.json").write_text(json.dumps(CONFIG))


def ours(folder: Path, method: str, given: dict[str, Any], out: Path) -> dict[str, torch.Tensor]:
    per_model = {key: value for key, value in given.items() if key in ("density", "epsilon")}
    models = [{"model": name, "weight": weight, **per_model} for name, weight in WEIGHTS.items()]
    if method == "slerp":
        models = [{"model": "a", "weight": 0.3}]
    whole = {key: value for key, value in given.items() if key not in per_model}
    base = None if method == "linear" else "base"
    settings = Merge.model_validate({"method": method, "base": base, "models": models, **whole})
    named = {name: Named(label=name, folder=folder / name) for name in ("base", *WEIGHTS)}
    out.mkdir()
    chosen = [named[each.model] for each in settings.models]
    merge_models(settings, base=named["base"] if base else None, models=chosen, target=out, seed=1)
    return load_file(out / "model.safetensors")


def theirs(peer: str, folder: Path, method: str, given: dict[str, Any], out: Path) -> dict[str, torch.Tensor]:
    per_model = {key: value for key, value in given.items() if key in ("density", "epsilon")}
    shared = {key: value for key, value in given.items() if key not in per_model}
    models: list[dict[str, Any]] = [
        {"model": str(folder / name), "parameters": {"weight": weight, **per_model}} for name, weight in WEIGHTS.items()
    ]
    config: dict[str, Any] = {"merge_method": method, "dtype": "float32", "parameters": shared}
    if method == "slerp":
        models = [{"model": str(folder / name)} for name in ("base", "a")]
    if method != "linear":
        config["base_model"] = str(folder / "base")
    path = out.with_suffix(".json")
    path.write_text(json.dumps({**config, "models": models}))
    subprocess.run([peer, str(path), str(out), "--quiet"], check=True, capture_output=True)
    found: dict[str, torch.Tensor] = {}
    for file in out.glob("*.safetensors"):
        found |= load_file(file)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=None, help="mergekit-yaml of an environment that has it")
    options = parser.parse_args()
    if options.peer is None:
        print("skipped: name mergekit-yaml with --peer")
        return 0
    failed = 0
    print("| ours | mergekit | entries that differ | largest difference | norm of the task vector, ours / theirs |")
    print("|---|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make(folder)
        base = load_file(folder / "base" / "model.safetensors")
        for number, (method, given, name, parameters, equal) in enumerate(CASES):
            mine = ours(folder, method, given, folder / f"ours{number}")
            other = theirs(options.peer, folder, name, parameters, folder / f"theirs{number}")
            assert mine.keys() == other.keys(), mine.keys() ^ other.keys()
            gaps = {key: (mine[key] - other[key]).abs() for key in mine}
            largest = max(float(gap.max()) for gap in gaps.values())
            differ = sum(int((gap > 2e-6).sum()) for gap in gaps.values())
            norms = [
                sum(float((tensors[key] - base[key]).square().sum()) for key in base) ** 0.5
                for tensors in (mine, other)
            ]
            failed += equal and differ > 0
            told = f"{method} {given or ''} | {name} {parameters or ''}"
            print(f"| {told} | {differ if equal else 'drawn otherwise'} | {largest:.1e} | {norms[0] / norms[1]:.4f} |")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
