"""Leaves a trained model in the formats others read, and says how each is loaded.

    <folder>/                   weights and configuration: transformers' Llava class, or our own where it cannot
    <folder>/adapters/<part>/   adapters in peft's format, where a part was trained through them

The whole model has the adapters merged in; what belongs beside it (tokenizer, image processor) is the task's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablab.contract.training import Trainability
from ablab.models.adapters import save_adapters
from ablab.models.llava_export import llava_obstacles, save_llava
from ablab.models.parts import part_of, remove_adapters
from ablab.models.vision_language import VisionLanguageModel


@dataclass(kw_only=True)
class Exported:
    """What was written.

    Args:
        format: llava (transformers' class) or own.
        why: why it is not transformers' class.
        load: lines of Python that load it.
        adapters: folder of adapters by part.
    """

    format: str
    why: list[str] = field(default_factory=list)
    load: list[str] = field(default_factory=list)
    adapters: dict[str, Path] = field(default_factory=dict)


def export_vision_language(
    model: VisionLanguageModel,
    folder: Path,
    *,
    parts: Mapping[str, Trainability] | None = None,
    arguments: Mapping[str, Any] | None = None,
    bases: Mapping[str, str] | None = None,
) -> Exported:
    """Write a model; its adapters are merged into it on the way.

    Args:
        model: trained, on any device.
        folder: created when missing.
        parts: how its parts were trained; those with adapters are saved apart too.
        arguments: what `build_vision_language` built it with beside decoder, tower and seed, as JSON values.
        bases: name of the model that a part's adapters belong to, where it has one.
    """
    adapters = {}
    for name, part in (parts or {}).items():
        if part.adapts:
            adapters[name] = folder / "adapters" / name
            save_adapters(part_of(model, name), adapters[name], base=(bases or {}).get(name))
    remove_adapters(model, parts or {})
    why = llava_obstacles(model)
    if why:
        from ablab.models.pretrained import save_own

        save_own(model, folder, arguments=arguments or {})
        load = [
            "from ablab.models.pretrained import VisionLanguagePreTrained",
            f"model = VisionLanguagePreTrained.from_pretrained({str(folder)!r})",
        ]
    else:
        save_llava(model, folder)
        load = [
            "from transformers import LlavaForConditionalGeneration",
            f"model = LlavaForConditionalGeneration.from_pretrained({str(folder)!r})",
        ]
    _readable(folder)
    return Exported(format="own" if why else "llava", why=why, load=load, adapters=adapters)


def _readable(folder: Path) -> None:
    """Let whoever may read the folder read its files: the library makes them for their owner alone."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
