"""One tower of a two-tower model of transformers: its class, and its weights out of a checkpoint of both.

transformers builds the towers of CLIP by a general name; those of others (the text of SigLIP, Chinese-CLIP, ALIGN) only
by a class of their own, and some look for their weights under other names than a checkpoint of both towers has.
Loading by name, and what of it may be missing, is `ablab.models.hub`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

#: What two-tower models call their towers, by kind of model.
TOWERS: Mapping[str, str] = {"vision": "vision_model", "text": "text_model"}


def tower_class(config: PreTrainedConfig) -> Any:
    """Return the class of a tower that has no general name (SiglipTextModel); None for any other model."""
    import transformers
    from transformers import MODEL_MAPPING

    name = type(config).__name__
    if type(config) in MODEL_MAPPING or not name.endswith(("TextConfig", "VisionConfig")):
        return None
    return getattr(transformers, f"{name.removesuffix('Config')}Model", None)


def taken_out(
    place: str, kind: str, whole: PreTrainedConfig, options: Mapping[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return the tower of a checkpoint of both, and which of its weights are missing or of another shape.

    Args:
        place: name or folder.
        kind: text or vision.
        whole: configuration of both.
        options: of `from_pretrained`, which reports what it loaded.
    """
    from transformers import AutoModel

    model, report = AutoModel.from_pretrained(place, config=whole, **options)
    tower: PreTrainedModel = model.get_submodule(TOWERS[kind])
    own = f"{TOWERS[kind]}."
    return tower, {
        "missing_keys": [name for name in report["missing_keys"] if name.startswith(own)],
        "mismatched_keys": [entry for entry in report["mismatched_keys"] if entry[0].startswith(own)],
    }
