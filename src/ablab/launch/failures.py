"""What follows the end of an attempt: the policy of each kind of failure, applied to one run.

Pure decisions: the scheduler carries them out. How an attempt ended is read by `ablab.launch.endings`; how memory is
saved is `ablab.launch.shrink`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ablab.contract.failure import POLICIES, FailureKind
from ablab.contract.order import Resources
from ablab.launch.shrink import shrink
from ablab.study.schema import Stage

#: Longest wait between looks at a GPU whose memory others hold, in seconds.
LONGEST_WAIT = 60.0


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an attempt ended, when it did not finish its run.

    Args:
        kind: failure kind.
        message: for people.
        detail: values behind the message.
        attempt: number of the attempt.
        checkpoint: mark of the newest checkpoint there is now; changes whenever a new one is written.
    """

    kind: FailureKind
    message: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1
    checkpoint: str = ""


@dataclass(kw_only=True)
class History:
    """What a launch remembers of a run's failures: how often each kind came since the last progress."""

    counts: Counter[FailureKind] = field(default_factory=Counter)
    checkpoint: str = ""

    def note(self, ending: Ending) -> int:
        """Count an ending; return how often its kind came without a new checkpoint in between.

        A crash counts for good: the same fault after progress is still the same fault. Interruptions of all kinds
        count together.
        """
        if ending.checkpoint != self.checkpoint:
            self.checkpoint = ending.checkpoint
            for kind in [kind for kind in self.counts if kind != "crash"]:
                del self.counts[kind]
        self.counts[ending.kind] += 1
        if POLICIES[ending.kind].action == "resume":
            return sum(count for kind, count in self.counts.items() if POLICIES[kind].action == "resume")
        return self.counts[ending.kind]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do about an ending.

    Args:
        action: again (a new attempt), wait (again after `delay`), pause (again when there is disk), stop.
        resolution: for the row of issues and resolutions.
        resources: of the next attempt.
        delay: seconds.
    """

    action: Literal["again", "wait", "pause", "stop"]
    resolution: str
    resources: Resources
    delay: float = 0.0


def decide(ending: Ending, history: History, *, stage: Stage, resources: Resources) -> Decision:
    """Return what follows `ending`, which is noted in `history`."""
    policy = POLICIES[ending.kind]
    times = history.note(ending)
    if policy.action == "shrink" and times <= policy.attempts:
        return _shrunk(ending, stage=stage, resources=resources)
    if policy.action == "stop" or times > policy.attempts:
        return Decision(action="stop", resolution=_why_stopped(ending, times), resources=resources)
    if policy.action == "wait":
        delay = min(LONGEST_WAIT, 2.0 ** min(times, 8))
        return Decision(action="wait", resolution=policy.says, resources=resources, delay=delay)
    if policy.action == "pause":
        return Decision(action="pause", resolution=policy.says, resources=resources)
    says = "once more" if policy.action == "retry-once" else f"{policy.says} ({times} of {policy.attempts})"
    return Decision(action="again", resolution=says, resources=resources)


def _shrunk(ending: Ending, *, stage: Stage, resources: Resources) -> Decision:
    smaller = shrink(stage, resources, ending.detail)
    if smaller.resources is None:
        return Decision(action="stop", resolution=f"stopped: {smaller.says}", resources=resources)
    return Decision(action="again", resolution=smaller.says, resources=smaller.resources)


def _why_stopped(ending: Ending, times: int) -> str:
    policy = POLICIES[ending.kind]
    if policy.action == "stop":
        return "stopped on request; goes on at the next launch" if ending.kind == "stopped" else policy.says
    if policy.action == "resume":
        return f"stopped: interrupted {times} times without a new checkpoint in between"
    if policy.action == "retry-once":
        return f"stopped: crashed {times} times"
    return f"stopped after {times} attempts"
