"""A hub cache whose repositories have the names that the study gives, the classes they have there, and tiny weights.

Files are those of the real repositories: two-tower checkpoints for CLIP and SigLIP, a sentencepiece-like tokenizer for
TinyLlama and MiniCPM, byte-level ones for StableLM and Phi-2, MiniCPM's own entries and code in its configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tasks.full_profiles import new_repository

REVISION = "a" * 40
WIDE = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
_TEXT = {**WIDE, "num_hidden_layers": 1, "vocab_size": 64}
_SEES = {**WIDE, "image_size": 28, "patch_size": 14}

#: Configurations by name, as transformers has them.
MODELS: dict[str, dict[str, Any]] = {
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": {"model_type": "llama", **WIDE, "num_hidden_layers": 2},
    "stabilityai/stablelm-2-zephyr-1_6b": {"model_type": "stablelm", **WIDE, "num_hidden_layers": 2},
    "microsoft/phi-2": {"model_type": "phi", **WIDE, "num_hidden_layers": 2},
    "openbmb/MiniCPM-2B-dpo-bf16": {
        "model_type": "granite", **WIDE, "num_hidden_layers": 2, "tie_word_embeddings": True,
    },
    "openai/clip-vit-large-patch14-336": {
        "model_type": "clip", "text_config": _TEXT, "vision_config": {**_SEES, "num_hidden_layers": 24},
        "projection_dim": 16,
    },
    "google/siglip-so400m-patch14-384": {
        "model_type": "siglip", "text_config": _TEXT, "vision_config": {**_SEES, "num_hidden_layers": 27},
    },
}  # fmt: skip
#: Ends of answers by name, and whether the tokenizer writes words as sentencepiece does.
ENDS = {
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": ("</s>", True),
    "stabilityai/stablelm-2-zephyr-1_6b": ("<|endoftext|>", False),
    "microsoft/phi-2": ("<|endoftext|>", False),
    "openbmb/MiniCPM-2B-dpo-bf16": ("</s>", True),
}
#: What MiniCPM's config.json has instead of Granite's entries.
MINICPM = {
    "model_type": "minicpm",
    "architectures": ["MiniCPMForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_minicpm.MiniCPMConfig",
        "AutoModelForCausalLM": "modeling_minicpm.MiniCPMForCausalLM",
    },
    "scale_emb": 12,
    "dim_model_base": 4,
    "scale_depth": 1.4,
}
_WORDS = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: What is in the picture? ASSISTANT: a red square on white.\n"
)


def write_hub(root: Path) -> None:
    """Write all repositories below a hub cache folder."""
    for name, config in MODELS.items():
        snapshot = new_repository(root, name, revision=REVISION)
        (_language if name in ENDS else _tower)(name, config, snapshot)


def _language(name: str, config: dict[str, Any], folder: Path) -> None:
    from ablab.contract.models import ModelReference
    from ablab.models.hub import load_model

    end, pieces = ENDS[name]
    size = _tokenizer(folder, end, pieces=pieces)
    given = {**config, "vocab_size": size, "num_key_value_heads": 2, "max_position_embeddings": 512}
    if config["model_type"] == "phi":
        del given["num_key_value_heads"]
    made: Any = load_model(ModelReference(config=given), kind="causal", seed=len(name))
    made.save_pretrained(folder)
    if name.startswith("openbmb/"):
        kept = {entry: given[entry] for entry in given if entry not in ("model_type", "tie_word_embeddings")}
        (folder / "config.json").write_text(json.dumps(kept | MINICPM))
        for file in ("configuration_minicpm.py", "modeling_minicpm.py"):
            (folder / file).write_text("raise RuntimeError('code of the repository ran')\n")


def _tokenizer(folder: Path, end: str, *, pieces: bool) -> int:
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=pieces, unk_token="<unk>" if pieces else None))
    if pieces:
        made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
        made.decoder = tokenizers.decoders.Metaspace(prepend_scheme="first")
        letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?\n"
        special, alphabet = ["<unk>", "<s>", "</s>"], list(letters)
    else:
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = tokenizers.decoders.ByteLevel()
        special, alphabet = ["<|endoftext|>"], sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([_WORDS], trainer)
    made.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end}
    if pieces:
        settings |= {"bos_token": "<s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return int(made.get_vocab_size())


def _tower(name: str, config: dict[str, Any], folder: Path) -> None:
    from ablab.contract.models import ModelReference
    from ablab.models.hub import load_model

    made: Any = load_model(ModelReference(config=config), kind="auto", seed=len(name))
    made.save_pretrained(folder)
    size = config["vision_config"]["image_size"]
    siglip = name.startswith("google/")
    processor = {
        "image_processor_type": "SiglipImageProcessor" if siglip else "CLIPImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size} if siglip else {"shortest_edge": size},
        "do_normalize": True,
        "image_mean": [0.5] * 3 if siglip else [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.5] * 3 if siglip else [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
    }
    if not siglip:
        processor |= {"do_center_crop": True, "crop_size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
