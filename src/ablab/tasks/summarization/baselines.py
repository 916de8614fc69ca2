"""Summaries without a model: lead-k and copy, the controls that any summariser has to beat."""

from __future__ import annotations

from ablab.contract.context import Context
from ablab.contract.order import Order
from ablab.contract.result import Outcome
from ablab.data.dialogues import turns
from ablab.tasks.summarization.config import Baseline
from ablab.tasks.summarization.corpus import open_dialogues
from ablab.tasks.summarization.scoring import score, shown, write_predictions, write_submission


def run(order: Order, context: Context) -> Outcome:
    """Score the first turns of each dialogue, or the whole of it, as if they were its summary."""
    context.event("start", step=0)
    parameters = Baseline.model_validate(order.parameters)
    rows = open_dialogues(order.inputs).rows(parameters.split)
    outputs = [written(row.dialogue, parameters) for row in rows]
    scored = score(rows, outputs, parameters.rouge, folder=order.study_folder, threads=context.numerics.threads)
    evaluation = shown(rows, outputs, scored, name=f"{parameters.split} split", examples=parameters.examples)
    return Outcome(
        metrics={f"{parameters.split}/{name}": value for name, value in scored.metrics.items()},
        facts={"rouge.tokenizer": parameters.rouge.tokenizer, "rouge.kept": scored.kept},
        artifacts=write_predictions(context.artifacts, rows, outputs, scored.corpus)
        | write_submission(context.artifacts, rows, outputs),
        evaluations=(evaluation,),
    )


def written(dialogue: str, parameters: Baseline) -> str:
    """Return the summary a baseline makes of a dialogue."""
    lines = turns(dialogue)
    return "\n".join(lines[: parameters.turns] if parameters.method == "lead" else lines)
