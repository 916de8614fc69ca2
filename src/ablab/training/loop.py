"""The training loop: steps over batches, with validation, checkpoints, resume and a name for every second.

A run is a pure function of (parameters, data, seed): every random stream is derived from (seed, stream, step), so
what is saved is weights, optimizer and counters, and an interrupted run continues to the same bits on one machine
and one numerics record. The loop knows no task; a task knows no loop (`ablab.training.task`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError, NotFiniteError, StopRequested
from ablab.contract.models import part_groups
from ablab.contract.result import Best, Outcome
from ablab.contract.seeds import stream_seed
from ablab.contract.training import Train
from ablab.models.parts import apply_trainability, part_table
from ablab.training import precision as numerics
from ablab.training.accumulation import micro_batch
from ablab.training.batches import Prefetcher, StepBatch, Stream, make_batch, to_device
from ablab.training.distribution import World, join
from ablab.training.facts import FirstSteps, parameter_facts, part_evaluation
from ablab.training.guard import Ledger, MicroSums, culprits
from ablab.training.keeper import Keeper
from ablab.training.memory import naming_size
from ablab.training.optimizer import build_optimizer, freeze, set_rate, trained_parameters
from ablab.training.schedule import factor
from ablab.training.state import Direction
from ablab.training.streams import seeder
from ablab.training.task import Data, TaskCode
from ablab.training.timing import Forecast, StepTimes
from ablab.training.validation import validate

#: Seconds between two tellings of the step to the state file's writer.
TELL_EVERY = 0.25


def train(
    code: TaskCode,
    parameters: Train,
    context: Context,
    *,
    direction: Callable[[str], Direction] = lambda _: "lower",
    declared: Sequence[str] = (),
) -> Outcome:
    """Train a task's model to the end, resuming from the newest valid checkpoint of the run.

    Args:
        code: the task's compute-plane half.
        parameters: of the train stage.
        context: the worker; its order holds seed, resources and numerics.
        direction: whether lower or higher is better, by metric name.
        declared: metrics of the stage kind; loss terms among them (train/r_at_1) are those of the last logged line.

    Raises:
        StopRequested: a stop was asked for; a checkpoint of the last step is written.
        NotFiniteError: detail names the step and the samples of its batch.
        OutOfMemoryError: detail {"micro_batch": n}, or {"evaluation_batch": n} in validation.
    """
    device = torch.device(context.numerics.device)
    with join(device) as world:
        trainer = Trainer(code, parameters, context, world=world, device=device, direction=direction, declared=declared)
        return trainer.run()


def prepare_model(code: TaskCode, parameters: Train, *, seed: int, device: torch.device) -> nn.Module:
    """Return the model to train on its device: built, parts and rules applied, checkpointed and compiled as asked."""
    model = code.model(seed=seed)
    apply_trainability(model, parameters.parts, seed=seed)
    restrict = getattr(code, "restrict", None)
    if restrict is not None:
        restrict(model)
    freeze(model, parameters.optimizer.groups)
    if parameters.gradient_checkpointing:
        enable = getattr(model, "gradient_checkpointing_enable", None)
        if enable is None:
            raise ConfigError("gradient_checkpointing is on, but this model has no gradient_checkpointing_enable()")
        enable()
    model.to(device)
    model.train()
    if parameters.compile:
        model.compile()
    return model


def _with_rates(parameters: Train) -> Train:
    """Return the parameters with the rates of the parts among the optimiser's rules."""
    rules = part_groups(parameters.parts, parameters.optimizer)
    optimizer = parameters.optimizer.model_copy(update={"groups": rules})
    return parameters.model_copy(update={"optimizer": optimizer})


class Trainer:
    """One training run in one process; `run` does it."""

    def __init__(
        self,
        code: TaskCode,
        parameters: Train,
        context: Context,
        *,
        world: World,
        device: torch.device,
        direction: Callable[[str], Direction],
        declared: Sequence[str] = (),
    ) -> None:
        self.declared = frozenset(declared)
        self.code, self.parameters, self.context = code, _with_rates(parameters), context
        self.world, self.device, self.direction = world, device, direction
        self.seed = context.order.seed or 0
        self.precision = context.numerics.precision or numerics.resolve(parameters.precision, device)
        with context.time("start-up"):
            self._start()

    def _start(self) -> None:
        parameters, resources = self.parameters, self.context.order.resources
        self.stream = Stream(self.code.data("train"), seed=self.seed, batch=parameters.batch)
        self.validation: Data = self.code.data("val")
        self.steps = parameters.steps or self.stream.steps(cast(float, parameters.epochs))
        wanted = resources.micro_batch or parameters.micro_batch
        self.micro = micro_batch(parameters.batch, wanted, size=self.world.size)
        with naming_size("micro_batch", self.micro):
            self.model = prepare_model(self.code, parameters, seed=self.seed, device=self.device)
            self.trained = trained_parameters(self.model)
            self.optimizer = build_optimizer(self.trained, parameters.optimizer, device=self.device)
            self.keeper = Keeper(
                self.context,
                parameters.checkpoints,
                world=self.world,
                model=self.model,
                optimizer=self.optimizer,
                parameters=self.trained,
            )
            self.state = self.keeper.resume()
            self.state.facts = self.state.facts or self._facts()
        self.first: FirstSteps | None = FirstSteps(self.model) if self.state.step == 0 else None
        self.scaler = numerics.Scaler(self.precision, self.device)
        self.scaler.load(self.state.scaler)
        self.ledger = Ledger(self.state.sums, device=self.device, world=self.world, scaled=self.scaler.active)
        self.times = StepTimes(waits=self.device.type == "cpu")
        self.reseed = seeder(self.device)
        self.forecast = Forecast(steps=self.steps, every=parameters.validation.every)
        self._told = 0.0
        self.context.event("start", step=self.state.step, steps=self.steps, micro_batch=self.micro)

    def run(self) -> Outcome:
        """Run the remaining steps and return what the run is worth."""
        make = self._make_batch
        with Prefetcher(make, self.state.step, self.steps) as batches:
            self._between()
            while not self._finished():
                began = time.perf_counter()
                with self.context.time("data"):
                    batch = next(batches)
                waited = time.perf_counter() - began
                self._step(batch)
                self._after(batch, time.perf_counter() - began, waited)
                self._between()
        self.keeper.finish(self.state)
        return self._outcome()

    def one_step(self, step: int) -> None:
        """Make the batch of a step and do it, outside a run (a probe)."""
        with self.context.time("data"):
            batch = self._make_batch(step)
        self._step(batch)

    def _make_batch(self, step: int) -> StepBatch:
        return make_batch(self.stream, step, micro=self.micro, rank=self.world.rank, size=self.world.size)

    def _finished(self) -> bool:
        return self.state.step >= self.steps or self.state.stopped_early

    def _step(self, batch: StepBatch) -> None:
        """Do one update of the weights."""
        rate = self.parameters.optimizer.learning_rate * factor(self.parameters.schedule, batch.step, self.steps)
        set_rate(self.optimizer, rate)
        (weight,) = self.world.sum([batch.weight])
        with naming_size("micro_batch", self.micro):
            with self.context.time("forward-backward"):
                sums = self._gradients(batch, divisor=weight or 1.0)
                self.world.sum_gradients(self.trained.values())
            with self.context.time("optimizer"):
                norm = self._clip()
                self._record(batch, sums, norm)
                if self.first is not None:
                    self.first.look(rate=rate)
                self.scaler.step(self.optimizer)
                self.optimizer.zero_grad(set_to_none=True)
        self._told_movement()
        self.state.step = batch.step + 1
        self.state.tokens += weight

    def _told_movement(self) -> None:
        """Note, once the first steps are done, which parameters moved that should not, and the other way round."""
        if self.first is not None and self.first.done:
            self.state.facts = self.state.facts | self.first.facts()
            self.first = None

    def _gradients(self, batch: StepBatch, *, divisor: float) -> MicroSums:
        """Add up the gradients of all micro-batches; the loss is divided by the weight of the effective batch."""
        sums = MicroSums()
        for offset, part in zip(batch.offsets, batch.micros, strict=True):
            self.reseed(stream_seed(self.seed, "dropout", batch.step, offset))
            with numerics.autocast(self.precision, self.device):
                losses = self.code.losses(self.model, to_device(part, self.device))
            self.scaler.scale(losses.total / divisor).backward()
            sums.add(losses.total, losses.terms)
        return sums

    def _clip(self) -> Tensor | None:
        """Clip the gradients by their global norm and return the norm before."""
        self.scaler.unscale(self.optimizer)
        gradients = [p.grad for p in self.trained.values() if p.grad is not None]
        if not gradients:
            return None
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        clip = self.parameters.clip
        if clip is None:
            return norm
        # On a CPU the value is at hand, and multiplying every gradient by one can be spared.
        if self.device.type != "cpu" or not norm.item() + 1e-6 <= clip:
            torch._foreach_mul_(gradients, torch.clamp(clip / (norm + 1e-6), max=1.0))
        return norm

    def _record(self, batch: StepBatch, sums: MicroSums, norm: Tensor | None) -> None:
        """Hand the step's losses to the ledger; a bad step is narrowed down to its samples where possible."""
        try:
            self.ledger.add(batch, batch.weight, sums, norm)
        except NotFiniteError as error:
            found = culprits(self.code, self.model, batch, self.device) if self.world.size == 1 else []
            if found:
                error.detail["culprits"] = found
                error.args = (f"{error.args[0]}; not finite by themselves: {', '.join(map(str, found[:8]))}",)
            raise

    def _after(self, batch: StepBatch, seconds: float, waited: float) -> None:
        """Log a line where one is due, and tell where the run stands."""
        self.times.add(seconds, batch.weight, waited=waited)
        step = self.state.step
        if step % self.parameters.log_every == 0:
            self._log(batch.step)
        elif time.monotonic() - self._told >= TELL_EVERY:
            self._tell()

    def _read(self) -> None:
        """Read what the steps so far yielded; waiting for a device that runs behind is forward and backward time."""
        began = time.perf_counter()
        with self.context.time("forward-backward"):
            self.ledger.read()
        self.times.settle(time.perf_counter() - began)

    def _log(self, step: int) -> None:
        self._read()
        values = self.ledger.line()
        self.state.train_loss = values["loss"]
        self.state.train_terms = {name: value for name, value in values.items() if f"train/{name}" in self.declared}
        rate = self.parameters.optimizer.learning_rate * factor(self.parameters.schedule, step, self.steps)
        self.context.event("step", step=self.state.step, lr=rate, tokens=self.state.tokens, **values)
        self._tell()

    def _log_rest(self) -> None:
        """Log the steps since the last line once there are no more."""
        if self._finished() and self.ledger.open:
            self._log(self.state.step - 1)

    def _tell(self) -> None:
        self._told = time.monotonic()
        state, seconds = self.state, self.times.recent()
        fields: dict[str, Any] = {"step": state.step, "steps": self.steps, "loss": state.train_loss}
        if seconds is not None:
            left, share = self.forecast.estimate(state.step, seconds)
            fields |= {"remaining": left, "progress": share, "per_second": 1.0 / seconds if seconds > 0 else None}
        self.context.state(**fields)

    def _between(self) -> None:
        """Do what is due after a step: validation, checkpoint, stop. Resuming at a step comes through here too."""
        stop, due = self.world.any(self.context.stop_requested(), self.keeper.due(self.state.step))
        wanted = False
        self._log_rest()
        if not stop and self._validation_due():
            try:
                wanted = self._validate()
            except StopRequested:
                stop = True
        self._log_rest()
        if self.keeper.unsaved(self.state) and (stop or wanted or due or self._finished()):
            self._read()
            self.state.scaler = self.scaler.state()
            self.keeper.save(self.state)
        if stop:
            raise StopRequested(f"stopped after step {self.state.step} of {self.steps}", step=self.state.step)

    def _validation_due(self) -> bool:
        step, every = self.state.step, self.parameters.validation.every
        if step == self.state.validated or self.validation.samples < 1:
            return False
        return step == self.steps or (every is not None and step % every == 0)

    def _validate(self) -> bool:
        """Validate at this step; return whether its checkpoint is among the best."""
        self._read()
        began = time.perf_counter()
        with self.context.time("validation"):
            values = self.validation_values()
        seconds = time.perf_counter() - began
        self.state.record(values, {name: self.direction(name) for name in values})
        self.context.event("validation", step=self.state.step, values=values, seconds=seconds)
        self.forecast.validated(seconds)
        best = {name: value for name, (value, _) in self.state.best.items()}
        self.context.state(last=values, best=best)
        rule = self.parameters.early_stopping
        if rule is not None:
            self.state.judge(rule, self.direction(rule.metric))
        return self.keeper.rank(self.state)

    def validation_values(self) -> dict[str, float]:
        """Return the metrics of the validation split, or of the first N effective batches of samples of it."""
        settings, resources = self.parameters.validation, self.context.order.resources
        values = validate(
            self.code,
            self.model,
            self.validation,
            split="val",
            batch=resources.evaluation_batch or settings.batch or self.micro,
            samples=settings.batches and settings.batches * self.parameters.batch,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            world=self.world,
            stop=self.context.stop_requested,
        )
        rule = self.parameters.early_stopping
        self._check_metric(values, "early_stopping.metric", None if rule is None else rule.metric)
        policy = self.parameters.checkpoints
        self._check_metric(values, "checkpoints.metric", policy.metric if policy.best else None)
        return values

    def _check_metric(self, values: dict[str, float], where: str, name: str | None) -> None:
        if name is not None and name not in values:
            raise ConfigError(f"{where} is {name!r}, but validation yields {', '.join(sorted(values))}", metric=name)

    def _facts(self) -> dict[str, Any]:
        """Return what the first batch tells about the untrained model."""
        facts = parameter_facts(self.model, self.parameters.optimizer.groups)
        if self.parameters.parts:
            facts["parameters.table"] = [asdict(row) for row in part_table(self.model, self.parameters.parts)]
        first = self._make_batch(0)
        self.model.eval()
        with torch.no_grad(), numerics.autocast(self.precision, self.device):
            facts |= self.code.facts(self.model, to_device(first.micros[0], self.device))
        self.model.train()
        return facts

    def _outcome(self) -> Outcome:
        state = self.state
        samples = state.step * self.parameters.batch
        facts = state.facts | {
            "tokens.seen": state.tokens,
            "samples.seen": samples,
            "samples.train": self.stream.data.samples,
            "epochs.seen": samples / self.stream.data.samples,
            "steps.done": state.step,
            "steps.planned": self.steps,
            "stopped.early": state.stopped_early,
            "micro_batch": self.micro,
            "precision": self.precision,
        }
        train_loss: dict[str, float] = {} if state.train_loss is None else {"train/loss": state.train_loss}
        terms = {f"train/{name}": value for name, value in state.train_terms.items()}
        return Outcome(
            metrics=terms | train_loss | state.last,
            best={name: Best(value=value, step=step) for name, (value, step) in state.best.items()},
            facts=facts,
            steps=self.times.summary(self.parameters.batch),
            evaluations=part_evaluation(state.facts),
            artifacts={which: f"checkpoints/{name}" for which, name in self._kept().items()},
        )

    def _kept(self) -> dict[Literal["last", "best"], str]:
        index = self.state.index
        kept: dict[Literal["last", "best"], str] = {}
        if index.last is not None:
            kept["last"] = index.last
        if index.best:
            kept["best"] = index.best[0].name
        return kept
