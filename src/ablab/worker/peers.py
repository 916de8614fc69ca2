"""Processes of a run beside the first: they compute, write nothing, and leave a note when they fail."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable

from ablab.contract.failure import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from ablab.contract.order import Order
from ablab.contract.result import Outcome
from ablab.store.files import read_json
from ablab.store.layout import RunFolder
from ablab.training.distribution import rank
from ablab.worker import numerics, records
from ablab.worker.clock import Clock
from ablab.worker.context import WorkerContext
from ablab.worker.failures import Failure, classify
from ablab.worker.stopping import Stop

#: Seconds the first process waits for the note of the one whose failure broke the group.
PATIENCE = 5.0


def follow(
    order: Order, run: RunFolder, clock: Clock, stop: Stop, compute: Callable[[Order, WorkerContext], Outcome]
) -> int:
    """Compute this process's share of a run."""
    try:
        device = numerics.select_device(order)
        numerics.configure(order)
        decided = numerics.decide(order, device)
        context = WorkerContext(order, run, attempt=None, numerics=decided, clock=clock, stop=stop)
        compute(order, context)
    except BaseException as error:
        failure = classify(error)
        if failure.traceback:
            traceback.print_exc()
        print(f"process {rank()}: {failure.kind}: {failure.message}", file=sys.stderr)
        _leave_note(run, failure)
        return EXIT_STOPPED if failure.kind == "stopped" else EXIT_FAILED
    return EXIT_DONE


def _leave_note(run: RunFolder, failure: Failure) -> None:
    numbers = run.attempts()
    if numbers:
        path = run.attempt(numbers[-1]).path / f"end-rank{rank()}.json"
        records.write_end(path, failure.kind, failure.message, failure.detail)


def first_cause(run: RunFolder) -> Failure | None:
    """Return the failure of the process that failed first, when its note says more than that the group broke."""
    until = time.monotonic() + PATIENCE
    while True:
        notes = [read_json(path) for path in run.attempt(run.attempts()[-1]).path.glob("end-rank*.json")]
        causes = sorted((n for n in notes if n["kind"] not in ("crash", "stopped")), key=lambda n: float(n["time"]))
        if causes:
            first = causes[0]
            return Failure(kind=first["kind"], message=first["message"], detail=first["detail"])
        if notes or time.monotonic() >= until:
            return None
        time.sleep(0.1)
