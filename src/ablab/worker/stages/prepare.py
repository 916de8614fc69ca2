"""The prepare stage: the task writes its data into the run's artifacts."""

from __future__ import annotations

from ablab.contract.context import Context
from ablab.contract.order import Order
from ablab.contract.result import Outcome
from ablab.worker.code import build_code, parameters_of


def run(order: Order, context: Context) -> Outcome:
    """Prepare data."""
    context.event("start", step=0)
    return build_code(order).prepare(parameters_of(order), context)
