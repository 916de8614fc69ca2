"""Learning-rate schedules as pure functions of the step, so that a resumed run needs no scheduler state.

The shapes are those of `transformers.optimization` (linear warm-up from 0; linear, cosine, cosine with hard restarts
after Loshchilov & Hutter 2017; warm-up–stable–decay after Hu et al. 2024, decaying linearly), scaled so that they end
at `final` times the peak. The step is 0 for the first update.
"""

from __future__ import annotations

import math

from ablab.contract.training import Schedule


def warmup_steps(schedule: Schedule, steps: int) -> int:
    """Return the steps of linear warm-up of a run of `steps` updates."""
    if schedule.warmup is not None:
        return schedule.warmup
    return round((schedule.warmup_ratio or 0.0) * steps)


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """Return the share of the peak learning rate for the update number `step` (from 0) of `steps`.

    A schedule that was made for another total follows that one, and stays where it ends.
    """
    if schedule.steps is not None:
        step, steps = min(step, schedule.steps), schedule.steps
    warmup = warmup_steps(schedule, steps)
    if step < warmup:
        return step / max(1, warmup)
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "warmup-stable-decay":
        shape = _stable_decay(step, steps, warmup, schedule.decay_ratio)
    else:
        progress = (step - warmup) / max(1, steps - warmup)
        shape = _shape(schedule, min(1.0, progress))
    return schedule.final + (1.0 - schedule.final) * shape


def _shape(schedule: Schedule, progress: float) -> float:
    """Return the value in [0, 1] of a schedule that falls over the whole time after warm-up."""
    if schedule.name == "linear":
        return 1.0 - progress
    if schedule.name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if progress >= 1.0:
        return 0.0
    return 0.5 * (1.0 + math.cos(math.pi * ((schedule.cycles * progress) % 1.0)))


def _stable_decay(step: int, steps: int, warmup: int, ratio: float) -> float:
    """Return 1 until the last `ratio` of all steps, then a straight line to 0."""
    decay = max(1, min(round(ratio * steps), steps - warmup))
    start = steps - decay
    return 1.0 if step < start else max(0.0, 1.0 - (step - start) / decay)
