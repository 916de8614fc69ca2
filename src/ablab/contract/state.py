"""`state.json` of a run folder: where a run stands, small enough to read ten thousand of them."""

from __future__ import annotations

from typing import Literal

from ablab.contract.base import Strict, setting

Status = Literal["running", "done", "failed", "stopped", "waiting", "paused"]


class State(Strict):
    """Where a run stands. Written by its worker (at most once a second) and by the launcher between attempts.

    No state file means the run never started. "running" is believed only while the run's claim is alive.
    """

    format: Literal[1] = 1
    status: Status
    attempt: int = 1
    updated: float = setting(..., "Unix time of this writing.")
    started: float | None = None
    finished: float | None = None
    step: int = 0
    steps: int = setting(0, "Total steps (or units of work) of the run; 0 when unknown.")
    progress: float = setting(0.0, "Share of the run's whole work, validation and later parts counted, 0 to 1.")
    remaining: float | None = setting(None, "Seconds the worker expects to need still.")
    per_second: float | None = setting(None, "Steps a second over the last lines.")
    loss: float | None = None
    best: dict[str, float] = setting(default_factory=dict)
    last: dict[str, float] = setting(default_factory=dict, description="Last validation values.")
    device: str = ""
    rss: int = 0
    gpu_memory: int = 0
    kind: str | None = setting(None, "Failure kind when failed, stopped, waiting or paused.")
    message: str = ""
