"""The train stage: the one loop over the task's model and data."""

from __future__ import annotations

from ablab.contract.context import Context
from ablab.contract.order import Order
from ablab.contract.result import Outcome
from ablab.training.loop import train
from ablab.worker.code import build_code, parameters_of, task_of


def run(order: Order, context: Context) -> Outcome:
    """Train from the newest valid checkpoint of the run, or from the start."""
    task = task_of(order)
    with context.time("start-up"):
        code = build_code(order)
    return train(
        code,
        parameters_of(order),
        context,
        direction=lambda name: task.metric(name).direction,
        declared=task.stages[order.kind].metrics,
    )
