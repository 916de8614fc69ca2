"""BERTScore (Zhang et al. 2020, arXiv 1904.09675) over any encoder of transformers.

Each token of one text is matched with the most similar token of the other, by the cosine of their hidden states in
one layer; recall is the mean over the reference's tokens, precision over the hypothesis's. As in the authors' code,
the tokens a tokenizer adds around a text may be matched, but weigh nothing themselves. No baseline is subtracted: only
scores of one encoder and one layer compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError

SCORES = ("precision", "recall", "f1")


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Unit hidden states (T, C) of one text, and which of its tokens are its own, bool (T,)."""

    states: Tensor
    own: Tensor


@torch.no_grad()
def bert_score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    model: nn.Module,
    tokenizer: Any,
    layer: int | None = None,
    batch: int = 32,
    max_length: int = 512,
) -> list[dict[str, float]]:
    """Return precision, recall and f1 of each pair of texts.

    Args:
        hypotheses: texts; one without tokens of its own scores 0.
        references: as many.
        model: an encoder, or an encoder-decoder, whose encoder is taken; in evaluation mode and on its device.
        tokenizer: transformers' tokenizer of the model, with a padding token.
        layer: hidden states to take, 0 being the embeddings; None is the last.
        batch: texts at once.
        max_length: tokens beyond are cut off.

    Raises:
        ConfigError: the model has no such layer, or the numbers of texts differ.
    """
    if len(hypotheses) != len(references):
        raise ConfigError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    inner: Any = model
    encoder = inner.get_encoder() if getattr(inner.config, "is_encoder_decoder", False) else model
    texts = sorted({*hypotheses, *references}, key=lambda text: (len(text), text))
    encoded: dict[str, _Encoded] = {}
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        made = _encode(part, encoder, tokenizer, layer=layer, max_length=max_length)
        encoded |= dict(zip(part, made, strict=True))
    return [_match(encoded[h], encoded[r]) for h, r in zip(hypotheses, references, strict=True)]


def _encode(
    texts: Sequence[str], encoder: nn.Module, tokenizer: Any, *, layer: int | None, max_length: int
) -> list[_Encoded]:
    given = tokenizer(
        list(texts),
        padding=True,
        truncation=True,
        max_length=max_length,
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    device = next(encoder.parameters()).device
    special, mask = given["special_tokens_mask"].bool(), given["attention_mask"].bool()
    if not mask.size(1):
        empty = torch.zeros(0, 1, device=device)
        return [_Encoded(states=empty, own=empty.new_zeros(0, dtype=torch.bool)) for _ in texts]
    layers = encoder(
        input_ids=given["input_ids"].to(device),
        attention_mask=given["attention_mask"].to(device),
        output_hidden_states=True,
    ).hidden_states
    wanted = len(layers) - 1 if layer is None else layer
    if not 0 <= wanted < len(layers):
        raise ConfigError(f"layer {layer} of an encoder with hidden states 0 to {len(layers) - 1}")
    states = nn.functional.normalize(layers[wanted].float(), dim=-1)
    return [
        _Encoded(states=row[seen.to(device)], own=(~added[seen]).to(device))
        for row, seen, added in zip(states, mask, special, strict=True)
    ]


def _match(hypothesis: _Encoded, reference: _Encoded) -> dict[str, float]:
    if not hypothesis.own.any() or not reference.own.any():
        return dict.fromkeys(SCORES, 0.0)
    similar = hypothesis.states @ reference.states.T
    precision = similar.amax(dim=1)[hypothesis.own].mean().item()
    recall = similar.amax(dim=0)[reference.own].mean().item()
    both = precision + recall
    return dict(zip(SCORES, (precision, recall, 2 * precision * recall / both if both else 0.0), strict=True))
