"""Which kind of failure an exception is, and the record it becomes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ablab.contract.failure import AblabError, FailureKind
from ablab.contract.memory import is_out_of_memory
from ablab.training.memory import FOREIGN_BYTES, foreign_gpu_bytes

_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failure as the record tells it. `traceback` says whether the log shows one: a user's mistake has none."""

    kind: FailureKind
    message: str
    detail: dict[str, Any] = field(default_factory=dict)
    traceback: bool = False


def classify(error: BaseException, *, foreign: Callable[[], int] = foreign_gpu_bytes) -> Failure:
    """Return the record of an exception that ended a stage.

    Args:
        error: the exception.
        foreign: bytes of our GPU that other processes hold.
    """
    detail = dict(error.detail) if isinstance(error, AblabError) else {}
    if is_out_of_memory(error):
        return _memory(error, detail, foreign)
    if (full := _disk_full(error)) is not None:
        return Failure(kind="disk-full", message=str(full), detail=detail)
    if isinstance(error, AblabError):
        return Failure(kind=error.kind, message=str(error), detail=detail)
    if isinstance(error, KeyboardInterrupt):
        return Failure(kind="stopped", message="interrupted")
    return Failure(kind="crash", message=_last_line(error), traceback=True)


def _memory(error: BaseException, detail: dict[str, Any], foreign: Callable[[], int]) -> Failure:
    on_gpu = any(isinstance(cause, torch.OutOfMemoryError) for cause in _chain(error))
    taken = foreign() if on_gpu else 0
    if taken > FOREIGN_BYTES:
        message = f"GPU memory is held by other processes ({taken / 2**30:.1f} GiB): {_last_line(error)}"
        return Failure(kind="memory-taken", message=message, detail=detail | {"foreign_bytes": taken})
    message = str(error) if isinstance(error, AblabError) else _last_line(error)
    return Failure(kind="out-of-memory", message=message, detail=detail)


def _disk_full(error: BaseException) -> BaseException | None:
    """Return the "no space left" among an exception and its causes; libraries wrap it in their own types."""
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return cause
        if isinstance(cause, AblabError) and cause.kind == "disk-full":
            return cause
        if "No space left on device" in str(cause) or "(os error 28)" in str(cause):
            return cause
    return None


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
