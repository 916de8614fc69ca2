"""Writes a model as transformers' LlavaForConditionalGeneration where that class can hold it, and says where not.

That class has a two-layer GELU connector, one hidden state (or several side by side) of a tower with at most one token
before its patches, and a head that is a plain product: no bias, no cap, no scale. Weights are handed over, not copied;
logits stay equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablab.models.adapters import has_adapters
from ablab.models.connectors.mlp import MLPConnector
from ablab.models.heads import plain_head
from ablab.models.vision_language import VisionLanguageModel

#: Towers whose hidden states that class reads as we do.
_TOWERS = ("clip_vision_model", "siglip_vision_model", "dinov2", "vit")


def llava_obstacles(model: VisionLanguageModel) -> list[str]:
    """Return why transformers' class cannot hold the model, in sentences; empty when it can."""
    llm, tower, config = model.llm, model.tower, model.tower.model.config
    found = []
    connector = model.connector
    if not isinstance(connector, MLPConnector) or connector.layers != 2:
        found.append(f"its connector is {type(connector).__name__}, that class has the two-layer MLP (mlp2x_gelu) only")
    head = llm.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        found.append(f"the head of {llm.config.model_type} has a bias, that class's has none")
    elif plain_head(llm) is None:
        found.append(f"the logits of {llm.config.model_type} are more than its head's product")
    if config.model_type not in _TOWERS:
        found.append(f"its tower is {config.model_type}; that class reads {', '.join(_TOWERS)}")
    elif tower.prefix > 1:
        found.append(f"its tower has {tower.prefix} tokens before the patches, that class drops one")
    if getattr(config, "ablab_rotary_2d", None):
        found.append("its tower turns queries and keys by row and column, which that class does not know")
    if has_adapters(llm) or has_adapters(tower) or has_adapters(model):
        found.append("it has adapters; merge them first")
    found += [f"its {part} has weights that its class does not know: {names}" for part, names in _foreign(model)]
    return found


def _foreign(model: VisionLanguageModel) -> list[tuple[str, str]]:
    """Return parts whose tensors are not those that transformers builds from their configurations."""
    found = []
    with torch.device("meta"):
        plain: dict[str, nn.Module] = {
            "llm": type(model.llm)(model.llm.config),
            "tower": type(model.tower.model)(model.tower.model.config),
        }
    mine: dict[str, nn.Module] = {"llm": model.llm, "tower": model.tower.whole(copied=False)}
    for part, module in plain.items():
        odd = sorted(module.state_dict().keys() ^ mine[part].state_dict().keys())
        if odd:
            found.append((part, ", ".join(odd[:3])))
    return found


def to_llava(model: VisionLanguageModel, *, image_token: int | None = None) -> Any:
    """Return the model as LlavaForConditionalGeneration, sharing its weights; call `llava_obstacles` first.

    Args:
        model: without adapters.
        image_token: id of the image token; None takes the model's, or a new row where that is no id. Rows of the
            vocabulary beyond the language model's are made, never generated, and zero.
    """
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    llm, tower = model.llm, model.tower
    rows = int(llm.get_input_embeddings().weight.size(0))
    token = model.image_token if image_token is None else image_token
    token = rows if token < 0 else token
    _grow(llm, token + 1, rows)
    vision: Any = tower.whole(copied=False)
    layers = [layer - tower.depth - 1 for layer in tower.layers_read]
    config = LlavaConfig(
        vision_config=vision.config.to_dict(),
        text_config=llm.config.to_dict(),
        image_token_index=token,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="default" if tower.prefix > tower.kept else "full",
        vision_feature_layer=layers[0] if len(layers) == 1 else layers,
        image_seq_length=model.image_tokens,
        multimodal_projector_bias=True,
        tie_word_embeddings=bool(llm.config.tie_word_embeddings),
    )
    with torch.device("meta"):
        made: Any = LlavaForConditionalGeneration(config)
    connector: Any = model.connector
    made.model.vision_tower = vision
    made.model.language_model = llm.get_decoder()
    made.model.multi_modal_projector.linear_1 = connector.mlp[0]
    made.model.multi_modal_projector.linear_2 = connector.mlp[2]
    made.lm_head = llm.get_output_embeddings()
    made.generation_config = llm.generation_config
    if token >= rows:
        made.generation_config.suppress_tokens = list(range(rows, token + 1))
    return made.eval()


@torch.no_grad()
def _grow(llm: Any, wanted: int, rows: int) -> None:
    """Give the vocabulary rows for the image token, zero as nothing looks them up."""
    if wanted <= rows:
        return
    llm.resize_token_embeddings(wanted, mean_resizing=False)
    for layer in (llm.get_input_embeddings(), llm.get_output_embeddings()):
        layer.weight[rows:] = 0.0


def save_llava(model: VisionLanguageModel, folder: Path) -> None:
    """Write the model's weights and configuration into a folder in transformers' format."""
    to_llava(model).save_pretrained(folder)
