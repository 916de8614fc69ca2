"""One order, from claim to record: `execute`.

    python -m ablab.worker ORDER        (under torchrun for several processes)

Whatever happens to the stage becomes `end.json` of the attempt and `state.json` of the run; only a kill leaves none.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ablab.contract.failure import EXIT_CLAIMED, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, AblabError, ConfigError
from ablab.contract.frozen import VARIABLE as FROZEN
from ablab.contract.order import Order
from ablab.contract.result import Outcome
from ablab.store.claims import Claim, Claimed, acquire
from ablab.store.dotenv import load_env
from ablab.store.files import write_json
from ablab.store.layout import AttemptFolder, RunFolder
from ablab.store.redact import scrub
from ablab.store.snapshot import environment
from ablab.training.distribution import rank, world_size
from ablab.training.trackers import open_trackers
from ablab.worker import numerics, peers, records
from ablab.worker.clock import Clock, process_began
from ablab.worker.code import run_stage, stage_of, task_of
from ablab.worker.context import WorkerContext
from ablab.worker.failures import Failure, classify
from ablab.worker.stopping import Stop, handling_signals

PROBE = "ablab.worker.stages.probe:run"


def execute(order_path: str | os.PathLike[str], *, began: float | None = None, redirect: bool = False) -> int:
    """Do one order and return the process's exit status (`ablab.contract.failure`).

    Args:
        order_path: the order file.
        began: `time.monotonic()` at which this process's work began; None asks the operating system.
        redirect: send what is printed to the attempt's log.
    """
    try:
        order = read_order(order_path)
    except AblabError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    load_env(order.study_folder)
    if order.source is not None:
        os.environ[FROZEN] = order.source
    run = RunFolder(order.folder)
    if run.done:
        return EXIT_DONE
    clock = Clock(process_began() if began is None else began)
    stop = Stop(order.deadline)
    with handling_signals(stop):
        if rank() > 0:
            return peers.follow(order, run, clock, stop, _compute)
        try:
            claim = acquire(run.claim_path)
        except Claimed as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_CLAIMED
        with claim:
            return EXIT_DONE if run.done else _attempt(order, run, claim, clock, stop, redirect=redirect)


def read_order(path: str | os.PathLike[str]) -> Order:
    """Return the order in a file. Raises ConfigError when there is none, CorruptFile when it is damaged."""
    order = RunFolder(Path(path).parent).read_order() if Path(path).name == "order.json" else None
    if order is not None:
        return order
    try:
        return Order.model_validate_json(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such order") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not an order: {error}") from error


def open_attempt(run: RunFolder, order: Order) -> AttemptFolder:
    """Return the folder of this attempt: the order's number, or the next where that one was used already."""
    wanted = run.attempt(order.attempt)
    used = wanted.events.exists() or wanted.end.exists() or any(n > order.attempt for n in run.attempts())
    return run.new_attempt() if used else wanted.create()


def _attempt(order: Order, run: RunFolder, claim: Claim, clock: Clock, stop: Stop, *, redirect: bool) -> int:
    attempt = open_attempt(run, order)
    if redirect:
        redirect_output(attempt.log)
    try:
        records.reserve(attempt)
        context = _open(order, run, attempt, claim, clock, stop)
    except BaseException as error:
        # Before there is a context to tell it through: an unusable device, an unknown tracker, a full disk.
        return _refused(run, attempt, classify(error), error)
    try:
        outcome = _compute(order, context)
        records.publish(run, context, claim, outcome)
        code = EXIT_DONE
    except BaseException as error:
        failure = _failure(error, stop, run)
        error.__traceback__ = None
        code = _failed(context, failure)
    finally:
        context.close()
        scrub(attempt.log)
        records.release_reserve(attempt)
    return code


def _open(
    order: Order, run: RunFolder, attempt: AttemptFolder, claim: Claim, clock: Clock, stop: Stop
) -> WorkerContext:
    device = numerics.select_device(order)
    numerics.configure(order)
    decided = numerics.decide(order, device)
    changed = numerics.changes(run, decided)
    numerics.write(attempt.path, decided)
    write_json(attempt.environment, environment(store=run.path), sync=False)
    trackers = open_trackers(order, attempt.path)
    context = WorkerContext(
        order, run, attempt=attempt, numerics=decided, clock=clock, stop=stop, claim=claim, mirror=trackers
    )
    if changed:
        context.event("message", level="warning", text=f"numerics differ from the first attempt: {changed}")
    return context


def _compute(order: Order, context: WorkerContext) -> Outcome:
    """Run the stage's function under the order's limits."""
    spec = stage_of(order, task_of(order))
    for given in order.inputs:
        if not RunFolder(given.path).done:
            raise ConfigError(f"input {given.reference} is not finished: {given.path} has no result; run it first")
    with address_space(order.resources.address_space):
        context.begin()
        return run_stage(spec.run if order.mode == "run" else PROBE, order, context)


@contextmanager
def address_space(limit: int | None) -> Iterator[None]:
    """Limit the memory this process may map; lifted at the end, so that a failure can still be recorded."""
    if limit is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _failure(error: BaseException, stop: Stop, run: RunFolder) -> Failure:
    failure = classify(error)
    if failure.kind == "stopped" and stop.kind is not None:
        message = f"{failure.message}: {stop.reason}"
        failure = Failure(kind=stop.kind, message=message, detail=failure.detail | {"reason": stop.reason})
    if failure.kind == "crash" and world_size() > 1:
        failure = peers.first_cause(run) or failure
    _tell(failure, error)
    return failure


def _tell(failure: Failure, error: BaseException) -> None:
    """Write a failure into the log; on a full disk the record has to do, for which room was set aside."""
    with suppress(OSError):
        if failure.traceback:
            traceback.print_exception(error)
        else:
            print(f"{failure.kind}: {failure.message}", file=sys.stderr)
        sys.stderr.flush()


def _failed(context: WorkerContext, failure: Failure) -> int:
    # The stage's tensors are gone with the traceback; their memory may be what the record needs.
    gc.collect()
    records.record_failure(context, failure)
    return EXIT_STOPPED if failure.kind in ("stopped", "time-limit") else EXIT_FAILED


def _refused(run: RunFolder, attempt: AttemptFolder, failure: Failure, error: BaseException) -> int:
    _tell(failure, error)
    records.refuse(run, attempt, failure)
    return EXIT_FAILED


def redirect_output(log: Path) -> None:
    """Append what this process prints, and what its libraries print, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
