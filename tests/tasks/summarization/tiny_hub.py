"""A hub cache whose repositories have the names that the study gives, the classes they have there, and tiny weights.

Files are those of the real repositories: mT5 comes as sentencepiece and pickled weights, KoBART as a tokenizer that
forgets the end of a text and pickled weights, the Korean T5 and SOLAR as tokenizer.json and safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.tasks.full_profiles import new_repository

REVISION = "b" * 40
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
_BART = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 1026,
}  # fmt: skip
_LLAMA = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip

#: Configurations by name.
MODELS: dict[str, dict[str, Any]] = {
    "csebuetnlp/mT5_multilingual_XLSum": {
        "model_type": "mt5", **_T5, "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0,
    },
    "eenzeenee/t5-base-korean-summarization": {
        "model_type": "t5", **_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
    },
    "digit82/kobart-summarization": {
        "model_type": "bart", **_BART, "decoder_start_token_id": 1, "bos_token_id": 1, "eos_token_id": 1,
        "pad_token_id": 3, "forced_eos_token_id": 1,
    },
    "upstage/SOLAR-10.7B-Instruct-v1.0": {"model_type": "llama", **_LLAMA},
}  # fmt: skip
PICKLED = ("csebuetnlp/mT5_multilingual_XLSum", "digit82/kobart-summarization")


def write_hub(root: Path, texts: Sequence[str]) -> None:
    """Write all repositories below a hub cache folder, their tokenizers trained on texts."""
    for name, config in MODELS.items():
        snapshot = new_repository(root, name, revision=REVISION)
        _write_model(snapshot, config, vocabulary=_TOKENIZERS[name](snapshot, texts), pickled=name in PICKLED)


def _write_model(folder: Path, config: dict[str, Any], *, vocabulary: int, pickled: bool) -> None:
    from ablab.contract.models import ModelReference
    from ablab.models.hub import load_model

    kind: Any = "causal" if config["model_type"] == "llama" else "seq2seq"
    model: Any = load_model(ModelReference(config={**config, "vocab_size": vocabulary}), kind=kind, seed=vocabulary)
    model.save_pretrained(folder)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")


def _sentencepiece(folder: Path, texts: Sequence[str]) -> int:
    """Write mT5's: spiece.model, pad 0, end 1, and no word of newlines."""
    import sentencepiece

    lines = [line for text in texts for line in text.split("\n")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "spiece"), vocab_size=600, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.vocab").unlink()
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "unk_token": "<unk>"}))
    processor: Any = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    return int(processor.get_piece_size())


def _pieces(
    folder: Path, texts: Sequence[str], *, special: Sequence[str], end: str | None, settings: dict[str, str]
) -> int:
    """Write a tokenizer.json of subwords; `end` is put behind a text, None adds nothing."""
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = tokenizers.decoders.Metaspace(prepend_scheme="first")
    made.train_from_iterator(
        texts,
        tokenizers.trainers.BpeTrainer(vocab_size=600, special_tokens=list(special), show_progress=False),
    )
    if end is not None:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, special.index(end))]
        )
    made.save(str(folder / "tokenizer.json"))
    given = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(given))
    return int(made.get_vocab_size())


def _t5(folder: Path, texts: Sequence[str]) -> int:
    special = ("<pad>", "</s>", "<unk>")
    return _pieces(
        folder, texts, special=special, end="</s>", settings={"pad_token": "<pad>", "eos_token": "</s>"}
    )  # fmt: skip


def _kobart(folder: Path, texts: Sequence[str]) -> int:
    special = ("<s>", "</s>", "<unk>", "<pad>", "<mask>")
    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    return _pieces(folder, texts, special=special, end=None, settings=settings)


def _solar(folder: Path, texts: Sequence[str]) -> int:
    special = ("<unk>", "<s>", "</s>")
    return _pieces(folder, texts, special=special, end=None, settings={"bos_token": "<s>", "eos_token": "</s>"})


_TOKENIZERS = {
    "csebuetnlp/mT5_multilingual_XLSum": _sentencepiece,
    "eenzeenee/t5-base-korean-summarization": _t5,
    "digit82/kobart-summarization": _kobart,
    "upstage/SOLAR-10.7B-Instruct-v1.0": _solar,
}
