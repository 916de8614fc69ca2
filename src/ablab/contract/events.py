"""The lines of `events.jsonl`: one JSON object a line, its type under "e", Unix time under "t".

Types and their keys:
- start: step (0 or the step it resumed from), pid, host
- step: step, loss, lr, grad_norm, tokens (cumulative), and any named loss term; logged every `log_every` steps, the
  losses averaged over the steps since the last line
- validation: step, values {metric: value}, seconds
- checkpoint: step, path, bytes, seconds, tags (last, best, keep)
- progress: done, total, unit (stages without steps)
- resource: rss, gpu_memory, gpu_utilisation
- time: totals {name: seconds} of this attempt so far
- message: text, level
- end: kind (done or a failure kind), message
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

EventType = Literal["start", "step", "validation", "checkpoint", "progress", "resource", "time", "message", "end"]


class Event(TypedDict, total=False):
    """Any event; which keys are present depends on its type. `attempt` is added on reading a run."""

    e: EventType
    t: float
    attempt: int
    step: int
    values: dict[str, float]
    totals: dict[str, float]
    loss: float
    lr: float
    text: str
    level: str
    extra: dict[str, Any]
