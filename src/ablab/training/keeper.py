"""Writing, keeping and finding the checkpoints of one training run, by the study's policy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ablab.contract.context import Context
from ablab.contract.training import Checkpoints
from ablab.training import checkpoint, retention
from ablab.training.distribution import World
from ablab.training.optimizer import load_state_tensors, state_tensors
from ablab.training.state import TrainState


class Keeper:
    """Checkpoints of a run. Every process asks it; only rank 0 writes."""

    def __init__(
        self,
        context: Context,
        policy: Checkpoints,
        *,
        world: World,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        parameters: Mapping[str, nn.Parameter],
    ) -> None:
        self._context, self._policy, self._world = context, policy, world
        self._model, self._optimizer, self._parameters = model, optimizer, parameters
        self._folder: Path = context.checkpoints
        self._written = time.monotonic()
        self._damaged: set[str] = set()
        self._saved = (0, 0)

    def resume(self) -> TrainState:
        """Return where the newest valid checkpoint stood, with weights and optimizer loaded; else a fresh state."""
        found = None
        if self._world.writes:
            checkpoint.sweep(self._folder)
            latest = checkpoint.latest_valid(self._folder, report=self._passed_over)
            found = None if latest is None else latest.name
        name = self._world.from_first(found)
        if name is None:
            return TrainState()
        tensors, content = checkpoint.load(self._folder / name, self._model)
        load_state_tensors(self._optimizer, self._parameters, tensors)
        state = TrainState.from_json(content)
        state.index = state.index.without_missing(self._folder)
        self._saved = (state.step, state.validated)
        return state

    def _passed_over(self, message: str) -> None:
        self._damaged.add(message.split()[1])
        self._context.event("message", text=message, level="warning")

    def due(self, step: int) -> bool:
        """Whether this process's clock, or the step, asks for a checkpoint."""
        if self.must_keep(step):
            return True
        if self._policy.every is not None:
            return step % self._policy.every == 0
        return time.monotonic() - self._written >= self._policy.seconds

    def must_keep(self, step: int) -> bool:
        """Whether the checkpoint of a step is kept for good."""
        return self._policy.keep_every is not None and step % self._policy.keep_every == 0

    def rank(self, state: TrainState) -> bool:
        """Enter the newest validation into the best ones; return whether its checkpoint is now wanted."""
        if not self._policy.best:
            return False
        value = state.last[self._policy.metric]
        return state.index.rank(state.step, value, mode=self._policy.mode, count=self._policy.best)

    def unsaved(self, state: TrainState) -> bool:
        """Whether the state has something to save that no checkpoint holds."""
        return state.step > 0 and self._saved != (state.step, state.validated)

    def save(self, state: TrainState) -> None:
        """Write the checkpoint of this step, then remove what is not needed any more."""
        with self._context.time("checkpoint"):
            if self._world.writes:
                self._save(state)
            self._world.wait()
        self._written = time.monotonic()
        self._saved = (state.step, state.validated)

    def finish(self, state: TrainState) -> None:
        """Leave only what a finished run keeps."""
        if self._world.writes:
            with self._context.time("checkpoint"):
                retention.write_index(self._folder, state.index)
                retention.prune(self._folder, state.index, spare=0, discard=self._damaged)

    def _save(self, state: TrainState) -> None:
        began = time.perf_counter()
        name = checkpoint.name_of(state.step)
        state.index.last = name
        if self.must_keep(state.step) and name not in state.index.keep:
            state.index.keep.append(name)
        # What was logged before a checkpoint is never logged again after it: it must be on disk first.
        self._context.flush()
        tensors = state_tensors(self._optimizer, self._parameters)
        size = checkpoint.save(self._folder / name, model=self._model, optimizer=tensors, state=state.to_json())
        self._damaged.discard(name)
        retention.write_index(self._folder, state.index, sync=False)
        retention.prune(self._folder, state.index, discard=self._damaged)
        seconds = time.perf_counter() - began
        tags = state.index.tags(name)
        self._context.event("checkpoint", step=state.step, path=name, bytes=size, seconds=seconds, tags=tags)
