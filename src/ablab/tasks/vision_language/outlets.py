"""What leaves the task: a trained model with tokenizer and processor in one folder, and answers to single questions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablab.contract.outlets import Ask, Exported
from ablab.contract.training import Trainability
from ablab.data.images import Framing
from ablab.models.export import export_vision_language
from ablab.models.vision_language import VisionLanguageModel
from ablab.store.files import write_json
from ablab.tasks.vision_language.benchmarks.protocol import Language, Picture, Question
from ablab.tasks.vision_language.evaluation import Answerer

if TYPE_CHECKING:
    from ablab.tasks.vision_language.task import VisionLanguage

_HANGUL = re.compile(r"[\u3131-\u318e\uac00-\ud7a3]")


def export(
    code: VisionLanguage, model: VisionLanguageModel, folder: Path, parts: Mapping[str, Trainability]
) -> Exported:
    """Write a model with all that is needed to use it elsewhere, and return how that is loaded.

    Args:
        code: the task, for tokenizer and framing.
        model: trained, its adapters not yet merged.
        folder: where to.
        parts: how its parts were trained.
    """
    section = code.assembly.section
    made = export_vision_language(
        model,
        folder,
        parts=parts,
        arguments=code.assembly.arguments,
        bases={"llm": section.llm.label, "tower": section.tower.label},
    )
    code.assembly.tokenizer.save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", processor_config(code.framing))
    load = list(made.load)
    if made.format == "llava":
        write_json(folder / "processor_config.json", _joint(model))
        load = [
            "from transformers import LlavaForConditionalGeneration, LlavaProcessor",
            load[1],
            f"processor = LlavaProcessor.from_pretrained({str(folder)!r}, backend='pil')",
        ]
    for name, place in made.adapters.items():
        base = getattr(section, name).label if name in ("llm", "tower") else name
        load.append(f"# adapters of {name} ({base}): peft.PeftModel.from_pretrained(model, {str(place)!r})")
    return Exported(format=made.format, why=made.why, load=load)


def processor_config(framing: Framing) -> dict[str, Any]:
    """Return the framing as the configuration of transformers' LLaVA image processor."""
    whole = {"height": framing.size, "width": framing.size}
    crop = framing.aspect == "crop"
    return {
        "image_processor_type": "LlavaImageProcessor",
        "do_pad": framing.aspect == "pad",
        "do_resize": True,
        "size": {"shortest_edge": framing.size} if crop else whole,
        "do_center_crop": crop,
        "crop_size": whole,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": list(framing.mean),
        "image_std": list(framing.std),
        "resample": framing.resample,
    }


def _joint(model: VisionLanguageModel) -> dict[str, Any]:
    """Return how text and images go together, as transformers' LLaVA processor reads it."""
    tower = model.tower
    return {
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "patch_size": tower.patch_size,
        "num_additional_image_tokens": tower.prefix,
        "vision_feature_select_strategy": "default" if tower.prefix > tower.kept else "full",
    }


def ask(code: VisionLanguage, model: VisionLanguageModel, request: Ask) -> str:
    """Return the model's answer to one question about images."""
    pictures = tuple(Picture(name=name, data=Path(name).read_bytes()) for name in request.images)
    asked: Any = request  # has of an evaluation what answering needs: decoding and batch
    # Routers of language experts are told the language; nobody says that of a single question.
    language: Language = "ko" if _HANGUL.search(request.question) else "en"
    question = Question(id="1", prompt=request.question, images=pictures, language=language)
    (answer,) = Answerer(code, model, asked)([question])
    return answer
