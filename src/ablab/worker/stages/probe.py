"""Modes probe and rehearse of a train stage: two real steps, and what only running can tell.

A rehearsal adds one validation and one checkpoint, written and read back. Both leave facts and no weights.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

import torch

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError, DataError
from ablab.contract.order import Order
from ablab.contract.result import Outcome
from ablab.contract.training import Schedule, Train
from ablab.training import checkpoint
from ablab.training.distribution import join
from ablab.training.facts import movement, snapshot
from ablab.training.loop import Trainer
from ablab.training.optimizer import state_tensors
from ablab.training.task import TaskCode
from ablab.worker import gauges
from ablab.worker.code import build_code, parameters_of, task_of

STEPS = 2


def run(order: Order, context: Context) -> Outcome:
    """Probe or rehearse a train stage."""
    parameters = parameters_of(order)
    if not isinstance(parameters, Train):
        raise ConfigError(f"stage kind {order.kind} cannot be probed: it has no training steps")
    task = task_of(order)
    with context.time("start-up"):
        code = build_code(order)
    device = torch.device(context.numerics.device)
    with join(device) as world:
        trainer = Trainer(
            code,
            # At the peak rate from the first step: a warm-up would hide what moves.
            parameters.model_copy(update={"schedule": Schedule(name="constant", warmup=0)}),
            context,
            world=world,
            device=device,
            direction=lambda name: task.metric(name).direction,
        )
        facts = _steps(trainer, code)
        metrics: dict[str, float] = {}
        if order.mode == "rehearse":
            metrics = _validate(trainer, facts)
            if world.writes:
                facts |= _checkpoint(trainer, context)
            world.wait()
    facts |= {"memory.rss": gauges.peak_rss(), "memory.gpu": gauges.peak_gpu_memory()}
    return Outcome(metrics=metrics, facts=trainer.state.facts | facts)


def _steps(trainer: Trainer, code: TaskCode) -> dict[str, Any]:
    """Take the first steps and return what they tell."""
    before = snapshot(trainer.model)
    seconds = []
    for step in range(STEPS):
        began = time.perf_counter()
        trainer.one_step(step)
        seconds.append(time.perf_counter() - began)
    line = trainer.ledger.line()
    facts: dict[str, Any] = movement(before, trainer.model, trainer.parameters.optimizer.groups)
    return facts | {
        "step.seconds": min(seconds),
        "step.first_seconds": seconds[0],
        "step.loss": line["loss"],
        "step.grad_norm": line["grad_norm"],
        "step.weight": trainer.state.tokens / STEPS,
        "steps.planned": trainer.steps,
        "samples.train": trainer.stream.data.samples,
        "samples.val": trainer.validation.samples,
        "epochs.planned": trainer.steps * trainer.parameters.batch / trainer.stream.data.samples,
        "micro_batch": trainer.micro,
        "precision": trainer.precision,
    }


def _validate(trainer: Trainer, facts: dict[str, Any]) -> dict[str, float]:
    began = time.perf_counter()
    with trainer.context.time("validation"):
        values = trainer.validation_values()
    facts["validation.seconds"] = time.perf_counter() - began
    return values


def _checkpoint(trainer: Trainer, context: Context) -> dict[str, Any]:
    """Write a checkpoint, read it back, compare, and remove it."""
    folder = context.checkpoints / checkpoint.name_of(trainer.state.step)
    with context.time("checkpoint"):
        began = time.perf_counter()
        tensors = state_tensors(trainer.optimizer, trainer.trained)
        size = checkpoint.save(folder, model=trainer.model, optimizer=tensors, state=trainer.state.to_json())
        written = time.perf_counter() - began
        before = snapshot(trainer.model)
        loaded, _ = checkpoint.load(folder, trainer.model)
        read = time.perf_counter() - began - written
        changed = movement(before, trainer.model)
        differs = [name for name in tensors if not torch.equal(tensors[name].cpu(), loaded[name])]
        differs += [name for name, share in changed["moved.parts"].items() if any(share.values())]
        problems = checkpoint.damage(folder)
        shutil.rmtree(folder)
    if differs or problems:
        raise DataError(f"a checkpoint read back is not what was written: {(problems or differs)[0]}")
    return {"checkpoint.bytes": size, "checkpoint.seconds": written, "checkpoint.read_seconds": read}
