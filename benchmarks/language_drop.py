"""What PyramidDrop gains at inference: a decoder that drops image tokens between its layers beside one that does not.

    python benchmarks/language_drop.py [--rounds 7] [--threads 1] [--width 512] [--layers 12] [--images 576] [--text 64]

Both have equal weights and take turns; ratios are medians of paired calls. Prefill is one pass over the prompt; an
answer is prefill and 16 more tokens with cache. A share of the image tokens left goes on before each quarter of the
layers. The share of tokens that all layers read stands beside, and so does dropping in the tower, which leaves the
decoder as many tokens as before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ablab.contract.models import DroppingSettings, LanguageDropSettings, ModelReference, PyramidSettings
from ablab.models.vision_language import VisionLanguageModel, build_vision_language

IMAGE, NEW = 1, 16


def build(options: argparse.Namespace, *, side: int, **more: Any) -> VisionLanguageModel:
    llm = {
        "model_type": "llama", "hidden_size": options.width, "intermediate_size": 3 * options.width,
        "num_hidden_layers": options.layers, "num_attention_heads": 8, "vocab_size": 2000,
        "max_position_embeddings": 4096, "bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    tower = {
        "model_type": "siglip_vision_model", "hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 4,
        "num_attention_heads": 4, "image_size": 8 * side, "patch_size": 8,
    }  # fmt: skip
    model = build_vision_language(
        llm=ModelReference(config=llm), tower=ModelReference(config=tower), layer=-1, image_token=IMAGE, seed=0, **more
    )
    return model.eval()


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def prefill(model: VisionLanguageModel, prompt: Tensor, features: Tensor) -> None:
    with torch.no_grad():
        embedded = model.embed(prompt, features=features)
        model.llm.get_decoder()(inputs_embeds=embedded, use_cache=True)


def answer(model: VisionLanguageModel, prompt: Tensor, features: Tensor) -> None:
    # Without a mask the library guesses one.
    mask = torch.ones_like(prompt)
    model.generate(prompt, features=features, attention_mask=mask, max_new_tokens=NEW, do_sample=False)


def shares(options: argparse.Namespace, keep: float) -> float:
    """Return the tokens that all layers read, as a share of those without dropping."""
    read, left = 0.0, float(options.images)
    for layer in range(options.layers):
        left *= keep if layer in before(options.layers) else 1.0
        read += left + options.text
    return read / float(options.layers * (options.images + options.text))


def before(layers: int) -> tuple[int, ...]:
    return tuple(layers * quarter // 4 for quarter in (1, 2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--images", type=int, default=576, help="image tokens, a square")
    parser.add_argument("--text", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    side = round(options.images**0.5)
    dropping = DroppingSettings(rates=(0.5, 0.3), least=16, warmup=0)
    models = {
        "none": (build(options, side=side), 1.0),
        "in the decoder, half each time": (
            build(options, side=side, language_drop=LanguageDropSettings(before=before(options.layers), keep=0.5)),
            shares(options, 0.5),
        ),
        "in the decoder, a quarter each time": (
            build(options, side=side, language_drop=LanguageDropSettings(before=before(options.layers), keep=0.25)),
            shares(options, 0.25),
        ),
    }
    pyramid = PyramidSettings(layers=(2, 4), scales=(0.5, 1.0), dropping=dropping)
    seeing = {
        "pyramid": build(options, side=side, pyramid=pyramid.model_copy(update={"dropping": None})),
        "pyramid with dropping": build(options, side=side, pyramid=pyramid),
    }
    prompt = torch.cat([torch.full((1, options.images), IMAGE), torch.randint(2, 2000, (1, options.text))], dim=1)
    features = torch.randn(1, options.images, 192)
    pixels = torch.randn(1, 3, 8 * side, 8 * side)
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(options.rounds + 1):
        for name, (model, _) in models.items():
            for kind, work in (("prefill", prefill), ("answer", answer)):
                spent = seconds(lambda model=model, work=work: work(model, prompt, features))  # type: ignore[misc]
                if turn:
                    times.setdefault((name, kind), []).append(spent)
        for name, model in seeing.items():
            with torch.no_grad():
                spent = seconds(lambda model=model: model.see(pixels))  # type: ignore[misc]
            if turn:
                times.setdefault((name, "see"), []).append(spent)
    print(f"{options.images} image and {options.text} text tokens, {options.layers} layers of {options.width}, fp32\n")
    print("| dropping | tokens read by all layers | prefill, ms | times as fast | answer, ms | times as fast |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, (_, share) in models.items():
        told = [f"{share:.2f}"]
        for kind in ("prefill", "answer"):
            told += [f"{1000 * statistics.median(times[name, kind]):.0f}", f"{ratio(times, name, 'none', kind):.2f}"]
        print(f"| {name} | " + " | ".join(told) + " |")
    spent = ratio(times, "pyramid", "pyramid with dropping", "see")
    print(f"\nDropping in the tower takes {spent:.2f} times as long to see an image, and saves the decoder no token.")


def ratio(times: dict[tuple[str, str], list[float]], mine: str, other: str, kind: str) -> float:
    """Return how many times as fast `mine` is as `other`, over paired calls."""
    return statistics.median(b / a for a, b in zip(times[mine, kind], times[other, kind], strict=True))


if __name__ == "__main__":
    main()
