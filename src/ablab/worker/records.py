"""What an attempt leaves on disk: its end record, and the result that makes the run done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablab.contract.events import Event
from ablab.contract.failure import AblabError, ConfigError
from ablab.contract.result import TIMES, Artifact, Outcome, Result
from ablab.contract.state import State, Status
from ablab.store.claims import Claim
from ablab.store.events import read_attempt_events
from ablab.store.files import write_bytes, write_json
from ablab.store.fingerprint import fingerprint
from ablab.store.layout import AttemptFolder, RunFolder, safe_name
from ablab.store.manifest import sha256
from ablab.store.redact import redact
from ablab.worker import gauges
from ablab.worker.context import WorkerContext
from ablab.worker.failures import Failure

#: Bytes set aside when an attempt begins, so that a full disk still takes the record that says so.
RESERVE_BYTES = 64 << 10
_RESERVE = ".tmp-reserve"
#: Cores that others kept busy from which on timings count as shared.
SHARED_CORES = 0.5


def reserve(attempt: AttemptFolder) -> None:
    """Set room aside for the end record."""
    write_bytes(attempt.path / _RESERVE, b"\0" * RESERVE_BYTES, sync=False)


def release_reserve(attempt: AttemptFolder) -> None:
    """Give the room back."""
    (attempt.path / _RESERVE).unlink(missing_ok=True)


def write_end(path: Path, kind: str, message: str = "", detail: dict[str, Any] | None = None) -> None:
    """Write an end record; on a disk so full that it does not fit, the process's exit status has to do."""
    with suppress(AblabError):
        record = {"kind": kind, "message": redact(message), "detail": redact(detail or {})}
        write_json(path, {"format": 1, **record, "time": time.time()})


def record_failure(context: WorkerContext, failure: Failure) -> None:
    """Write what became of an attempt that failed or was stopped, as far as the disk takes it."""
    attempt = context.attempt
    if attempt is None:
        return
    release_reserve(attempt)
    write_end(attempt.end, failure.kind, failure.message, failure.detail)
    if failure.kind == "lost":
        # The run, and so its state, are another worker's now.
        return
    status: Status = "stopped" if failure.kind in ("stopped", "time-limit") else "failed"
    with suppress(AblabError):
        context.sample()
        context.event("end", kind=failure.kind, message=failure.message)
        context.write_state(status, kind=failure.kind, message=failure.message)


def refuse(run: RunFolder, attempt: AttemptFolder, failure: Failure) -> None:
    """Write what became of an attempt that could not even begin."""
    release_reserve(attempt)
    write_end(attempt.end, failure.kind, failure.message, failure.detail)
    state = State(
        status="failed",
        attempt=attempt.number,
        updated=time.time(),
        finished=time.time(),
        kind=failure.kind,
        message=failure.message,
    )
    with suppress(AblabError):
        run.write_state(state)


def publish(run: RunFolder, context: WorkerContext, claim: Claim, outcome: Outcome) -> None:
    """Make a run done: result, end record, state, in this order, after rechecking the claim.

    Raises:
        ClaimLost: another worker took the run over.
        ConfigError: the stage names an artifact that is not there.
    """
    attempt = context.attempt
    assert attempt is not None
    evaluations = _write_evaluations(run, outcome)
    artifacts = {name: _artifact(run.path, path) for name, path in outcome.artifacts.items()}
    context.sample()
    context.event("end", kind="done", message="")
    context.flush()
    result = Result(
        key=context.order.key,
        metrics=outcome.metrics,
        best=outcome.best,
        facts=outcome.facts,
        time=total_times(run),
        steps=outcome.steps,
        peak=peaks(run) | outcome.peak,
        numerics=context.numerics,
        artifacts=artifacts,
        evaluations=evaluations,
        attempts=len(run.attempts()),
        shared=context.foreign_cores() >= SHARED_CORES,
    )
    claim.check()
    run.write_result(result)
    release_reserve(attempt)
    write_end(attempt.end, "done")
    context.write_state("done", progress=1.0, remaining=0.0)


def _write_evaluations(run: RunFolder, outcome: Outcome) -> tuple[str, ...]:
    paths = []
    for evaluation in outcome.evaluations:
        relative = f"artifacts/evaluations/{safe_name(evaluation.name)}.json"
        write_json(run.path / relative, evaluation)
        paths.append(relative)
    return tuple(paths)


def _artifact(folder: Path, relative: str) -> Artifact:
    """Return size and hash of a file, or of a folder's content."""
    path = folder / relative
    if path.is_dir():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return Artifact(path=relative, bytes=size, sha256=fingerprint(path))
    if not path.is_file():
        raise ConfigError(f"the stage names an artifact {relative} that it did not write", file=str(path))
    size, digest = sha256(path)
    return Artifact(path=relative, bytes=size, sha256=digest)


def total_times(run: RunFolder) -> dict[str, float]:
    """Return the seconds by name over all attempts, each by its last account."""
    sums = dict.fromkeys(TIMES, 0.0)
    for events in _events_by_attempt(run):
        accounts = [event for event in events if event.get("e") == "time"]
        for name, seconds in accounts[-1]["totals"].items() if accounts else ():
            sums[name] = sums.get(name, 0.0) + seconds
    return sums


def peaks(run: RunFolder) -> dict[str, int]:
    """Return the largest memory any attempt logged, in bytes."""
    found = {"rss": gauges.peak_rss(), "gpu": gauges.peak_gpu_memory()}
    for events in _events_by_attempt(run):
        for event in events:
            if event.get("e") == "resource":
                found["rss"] = max(found["rss"], int(event.get("rss", 0)))  # type: ignore[call-overload]
                found["gpu"] = max(found["gpu"], int(event.get("gpu_memory", 0)))  # type: ignore[call-overload]
    return found


def _events_by_attempt(run: RunFolder) -> Iterator[list[Event]]:
    """Yield the events of each attempt; a line that was damaged costs no run its result, and the report names it."""
    for number in run.attempts():
        yield read_attempt_events(run.attempt(number).events, problems=[])
