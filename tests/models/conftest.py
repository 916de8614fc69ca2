"""Tiny models of transformers' own classes, built once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 99,
}  # fmt: skip
_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
CLIP_VISION = {"model_type": "clip_vision_model", **_TOWER, "image_size": 28, "patch_size": 7}
CLIP = {
    "model_type": "clip",
    "vision_config": {**_TOWER, "image_size": 28, "patch_size": 7},
    "text_config": {**_TOWER, "vocab_size": 99},
}
T5 = {
    "model_type": "t5", "d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4, "vocab_size": 99,
    "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0,
}  # fmt: skip
BART = {
    "model_type": "bart", "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 99,
    "max_position_embeddings": 64,
}  # fmt: skip
CONFIGS = {"llama": LLAMA, "clip_vision": CLIP_VISION, "clip": CLIP, "t5": T5, "bart": BART}


@pytest.fixture
def build() -> Callable[..., Any]:
    """Build one of CONFIGS: build("llama", kind="causal", seed=1)."""
    from ablab.contract.models import ModelReference
    from ablab.models.hub import load_model

    def made(name: str, *, kind: str = "auto", seed: int = 1, **options: Any) -> Any:
        return load_model(ModelReference(config=CONFIGS[name]), kind=kind, seed=seed, **options)

    return made


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny model as transformers saves it."""
    from ablab.contract.models import ModelReference
    from ablab.models.hub import load_model

    root = tmp_path_factory.mktemp("saved")

    def folder(name: str) -> Path:
        path = root / name
        if not path.is_dir():
            kind = {"llama": "causal", "t5": "seq2seq", "bart": "seq2seq"}.get(name, "auto")
            load_model(ModelReference(config=CONFIGS[name]), kind=kind, seed=3).save_pretrained(path)  # type: ignore[arg-type]
        return path

    return folder


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(3, 99, (2, 9), generator=torch.Generator().manual_seed(0))
