"""The command stage: a program of the user's, started, followed, stopped, and judged by what it told."""

from __future__ import annotations

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError
from ablab.contract.order import Order
from ablab.contract.result import Outcome
from ablab.worker.code import parameters_of
from ablab.worker.command.attempt import Attempt
from ablab.worker.command.judging import judge


def run(order: Order, context: Context) -> Outcome:
    """Run the program to its end; resumes where the stage says how, and starts at zero otherwise.

    Raises:
        AblabError: of the kind of the program's failure (`ablab.worker.command.judging`).
        StopRequested: a stop was asked for, and the program has ended.
    """
    if order.mode != "run":
        raise ConfigError(f"stage kind {order.kind} runs a program whole; it cannot be rehearsed")
    attempt = Attempt(order, parameters_of(order), context)
    try:
        with context.time("start-up"):
            attempt.begin()
        attempt.follow()
    finally:
        attempt.close()
    return judge(attempt)
