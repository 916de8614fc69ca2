"""What a layer of language experts costs beside the feed-forward layer it replaces, for the work it does.

    python benchmarks/experts.py [--rounds 15] [--threads 1] [--width 768] [--hidden 2048] [--tokens 1024]

Bar: its time is at most 1.3 x (its floating-point operations / the layer's) x the layer's time. Layers take turns call
by call; ratios are medians of paired calls, forward alone and with the backward pass.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from ablab.contract.experts import ExpertSettings
from ablab.models.mixture import ExpertFeedForward, Route

BAR = 1.3


def operations(settings: ExpertSettings | None, *, width: int, hidden: int) -> float:
    """Return the multiplications a token takes."""
    dense = 3 * width * hidden
    if settings is None:
        return dense
    router = (width + 1) * settings.hidden + settings.hidden * len(settings.experts)
    low_rank = 0 if settings.adapters is None else settings.adapters * 3 * (width + hidden)
    return settings.active * (dense + low_rank) + router


def layers(width: int, hidden: int, dtype: torch.dtype) -> dict[str, tuple[nn.Module, ExpertSettings | None]]:
    config = LlamaConfig(hidden_size=width, intermediate_size=hidden)
    found: dict[str, tuple[nn.Module, ExpertSettings | None]] = {"dense layer": (LlamaMLP(config).to(dtype), None)}
    for name, given in {
        "three experts, dense": {},
        "top-2": {"routing": "top-2"},
        "top-1": {"routing": "top-1"},
        "three low-rank experts (16), dense": {"adapters": 16},
    }.items():
        settings = ExpertSettings(layers=(0,), **given)
        route = Route()
        generator = torch.Generator().manual_seed(0)
        made = ExpertFeedForward(
            LlamaMLP(config).to(dtype), width=width, settings=settings, route=route, generator=generator
        )
        route.languages = torch.tensor([0, 1])
        found[name] = (made, settings)
    return found


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def forward(layer: nn.Module, states: Tensor) -> None:
    with torch.no_grad():
        layer(states)


def both(layer: nn.Module, states: Tensor) -> None:
    total = layer(states).float().square().mean()
    total = total + sum(getattr(layer, "auxiliary", {}).values())
    total.backward()
    layer.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    states = torch.randn(2, options.tokens // 2, options.width).to(dtype)
    made = layers(options.width, options.hidden, dtype)
    print(f"width {options.width}, hidden {options.hidden}, {options.tokens} tokens, {options.dtype}\n")
    print("| layer | operations, of the dense layer's | forward, of its time | over operations | "
          "with backward | over operations |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|")
    times: dict[str, dict[str, list[float]]] = {name: {"forward": [], "both": []} for name in made}
    for turn in range(options.rounds + 2):
        for name, (layer, _) in made.items():
            for kind, work in (("forward", forward), ("both", both)):
                layer.train(kind == "both")
                spent = seconds(lambda layer=layer, work=work: work(layer, states))  # type: ignore[misc]
                if turn >= 2:
                    times[name][kind].append(spent)
    reference = operations(None, width=options.width, hidden=options.hidden)
    for name, (_, settings) in made.items():
        share = operations(settings, width=options.width, hidden=options.hidden) / reference
        told = [f"{share:.2f}"]
        for kind in ("forward", "both"):
            pairs = zip(times[name][kind], times["dense layer"][kind], strict=True)
            ratio = statistics.median(mine / other for mine, other in pairs)
            told += [f"{ratio:.2f}", f"{ratio / share:.2f}"]
        print(f"| {name} | " + " | ".join(told) + " |")
    print(f"\nBar: at most {BAR} over operations.")


if __name__ == "__main__":
    main()
