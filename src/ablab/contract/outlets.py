"""What a trained model is taken out by, or tried with: the stage kinds export and ask, for tasks that offer them.

`ablab export` and `ablab ask` give a worker such an order on demand; export may stand in a pipeline too. Code of a task
that offers them has

    export(model, folder, parts) -> Exported      writes the model, parts being how its parts were trained
    ask(model, request) -> str                    answers one question
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ablab.contract.base import Strict, setting
from ablab.contract.decoding import Decoding
from ablab.contract.task import StageSpec


@dataclass(kw_only=True)
class Exported:
    """What an export wrote.

    Args:
        format: of the folder, in a word or two.
        why: why it is not the format others read best, in sentences.
        load: lines of Python that load it.
    """

    format: str
    why: list[str] = field(default_factory=list)
    load: list[str] = field(default_factory=list)


class Export(Strict):
    """Parameters of an export stage."""

    folder: str | None = setting(None, "Folder to write to; null is the artifact `model` of the run.", keyed=False)


class Ask(Strict):
    """Parameters of one question."""

    question: str = setting(..., "The question.", min_length=1)
    images: tuple[str, ...] = setting((), "Image files it is about.")
    template: str = setting("auto", "Chat template; the one that the model was trained with.")
    decoding: Decoding = setting(
        default_factory=lambda: Decoding(max_new_tokens=128), description="How the answer is made."
    )
    batch: int = setting(1, "Questions at once.", ge=1, keyed=False)


def export_spec(*sections: str) -> StageSpec:
    """Return the stage kind export of a task whose model is built from these sections."""
    return StageSpec(
        kind="export",
        parameters=Export,
        sections=sections,
        seeded=False,
        run="ablab.worker.stages.outlets:export",
        inputs=("train",),
        accelerator=False,
        summary="leave the trained model in the format others load",
    )


def ask_spec(*sections: str) -> StageSpec:
    """Return the stage kind ask of a task whose model is built from these sections."""
    return StageSpec(
        kind="ask",
        parameters=Ask,
        sections=sections,
        seeded=False,
        run="ablab.worker.stages.outlets:ask",
        inputs=("train",),
        summary="answer one question with the trained model",
    )
