"""What a program that has ended comes to: an outcome, or a failure of its kind.

It is done when it exited with 0, told every metric the study judges by, all finite, and wrote its declared outputs.
"""

from __future__ import annotations

import math
import re
import signal
from typing import Any

from ablab.contract.failure import (
    AblabError,
    DataError,
    DiskFullError,
    FailureKind,
    NotFiniteError,
    OutOfMemoryError,
)
from ablab.contract.result import Outcome
from ablab.store.redact import redact
from ablab.worker.command.attempt import Attempt
from ablab.worker.command.ledger import Summary, summary

#: Lines of the output in a message.
_SHOWN = 6
_FULL = re.compile(r"No space left on device|\[Errno 28\]|Disk quota exceeded")


class ProgramError(AblabError):
    """The program failed in a way that is its own."""

    kind: FailureKind = "crash"


class KilledError(AblabError):
    """The program was killed from outside."""

    kind: FailureKind = "killed"


def judge(attempt: Attempt) -> Outcome:
    """Return what an attempt leaves whose program has ended by itself.

    Raises:
        ProgramError: another exit status than 0.
        KilledError: the program was killed.
        OutOfMemoryError: its memory ran out.
        NotFiniteError: a metric the study judges by is not finite.
        DataError: such a metric was never told, or an output is missing.
    """
    if attempt.process.exit != 0:
        raise _failure(attempt)
    told = summary(attempt.context, direction=attempt.direction)
    _check_metrics(told, attempt.order.wanted)
    artifacts = attempt.workspace.collect(attempt.parameters.outputs)
    attempt.workspace.tidy()
    return Outcome(
        metrics={name: value for name, value in told.last.items() if math.isfinite(value)},
        best=told.best,
        facts=_facts(attempt, told),
        peak={"rss": attempt.peak},
        artifacts=artifacts,
    )


def _facts(attempt: Attempt, told: Summary) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "command": attempt.command(),
        "command.parameters": dict(attempt.values.own),
        "command.resumed": attempt.resumed is not None,
    }
    if told.steps:
        facts["steps.done"] = told.steps
    odd = [name for name, value in told.last.items() if not math.isfinite(value)]
    if odd:
        facts["metrics.not_finite"] = odd
    if attempt.order.resources.parameters:
        facts["command.changed"] = dict(attempt.order.resources.parameters)
    return facts


def _failure(attempt: Attempt) -> AblabError:
    """Return the failure of a program that ended with another status than 0."""
    status, tail = attempt.process.exit, list(attempt.process.tail)
    shown = redact(" | ".join(last_words(tail)), secrets=attempt.secrets)
    ends = f"; its output ends: {shown}" if tail else "; it said nothing"
    detail: dict[str, Any] = {
        "exit": status,
        "resumed": attempt.resumed is not None,
        "told": attempt.ledger.told,
    }
    memory = attempt.parameters.out_of_memory
    if status == memory.exit_code or re.search(memory.pattern, "\n".join(tail)):
        values = {name: attempt.values.own[name] for name in (*memory.halve, *memory.double)}
        return OutOfMemoryError(f"the program ran out of memory (exit status {status}){ends}", values=values, **detail)
    if _FULL.search("\n".join(tail)):
        return DiskFullError(f"the program found the disk full{ends}", **detail)
    if status == -signal.SIGKILL:
        why = "the program was killed (SIGKILL), as the system does when its memory runs out"
        return KilledError(why + ends, **detail)
    how = f"signal {_name(-status)}" if status is not None and status < 0 else f"exit status {status}"
    return ProgramError(f"the program ended with {how}{ends}", **detail)


def last_words(tail: list[str]) -> list[str]:
    """Return the lines that say what went wrong: the last ones; of a Python traceback its last place and its error."""
    begin = max((n for n, line in enumerate(tail) if line.startswith("Traceback (most recent")), default=None)
    if begin is None:
        return [line.strip() for line in tail[-_SHOWN:]]
    inside = tail[begin + 1 :]
    places = [line.strip() for line in inside if line.startswith("  File ")]
    error = [line.strip() for line in inside if not line.startswith(" ")]
    return [*places[-1:], *error[:_SHOWN]]


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _check_metrics(told: Summary, wanted: tuple[str, ...]) -> None:
    missing = [name for name in wanted if name not in told.last]
    if missing:
        raise DataError(
            f"the program ended well but never told {', '.join(missing)}, which the study judges by; it told: "
            f"{', '.join(sorted(told.last)) or 'nothing'}; correct `metrics:` of the stage",
            missing=missing,
        )
    odd = [name for name in wanted if not math.isfinite(told.last[name])]
    if odd:
        listed = ", ".join(f"{name} is {told.last[name]}" for name in odd)
        raise NotFiniteError(f"the program ended well, but {listed}", metrics=odd)
