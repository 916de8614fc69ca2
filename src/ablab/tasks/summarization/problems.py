"""What cannot work whatever the data: said by the audit before a run, and by the run itself; no torch."""

from __future__ import annotations

from ablab.contract.failure import ConfigError
from ablab.tasks.summarization.sections import Model


def check_accelerator(section: Model) -> None:
    """Refuse an accelerator that does not apply, by name.

    Raises:
        ConfigError: it says why and what to do.
    """
    problem = accelerator_problem(section)
    if problem is not None:
        raise ConfigError(f"model.accelerator: {problem}")


def accelerator_problem(section: Model) -> str | None:
    """Return why an accelerator cannot be used; and, after a semicolon, what to do. None where there is none."""
    name = section.accelerator.lower()
    if name == "none":
        return None
    if name == "unsloth" and section.kind == "seq2seq":
        return (
            "unsloth loads decoder-only models and never an encoder-decoder, where scripts fall back in silence; set "
            "accelerator to none, and mode: qlora under pipeline.train.parts.all for training in 4 bits"
        )
    return (
        f"{section.accelerator} is not part of the training step; set accelerator to none (SDPA attention, fused "
        "AdamW, budgets of tokens and compile are its own), or run your script by task: command"
    )
