"""`check_task`: does a task of one's own keep what the lab promises? For the tests of packages and of files.

    from ablab.testing import check_task
    def test_my_task(): check_task("my_task.py:SPEC", folder="studies", sections={"model": {"width": 8}})

Runs real workers' code in this process, in a store of its own that is removed again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablab.contract.failure import EXIT_DONE, ConfigError
from ablab.contract.order import Input, Order, Resources
from ablab.contract.registry import find_task
from ablab.contract.task import StageSpec, TaskSpec
from ablab.contract.training import Train
from ablab.store.layout import RunFolder, Store
from ablab.training.checkpoint import name_of
from ablab.training.retention import INDEX, find
from ablab.training.weights import load_tensors
from ablab.worker.code import build_code
from ablab.worker.main import execute

__all__ = ["Checked", "check_task"]

#: Share of its first loss that one batch has to fall below when it is learnt by heart.
_LEARNT = 0.5


@dataclass(kw_only=True)
class Checked:
    """What was found: final training loss, and loss on one batch before and after learning it by heart."""

    loss: float = float("nan")
    overfit: tuple[float, float] = (float("nan"), float("nan"))
    metrics: dict[str, float] = field(default_factory=dict)


def check_task(
    task: str,
    *,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    stages: Mapping[str, Mapping[str, Any] | None] | None = None,
    train: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    steps: int = 8,
    batch: int = 4,
    overfit_steps: int = 60,
    learning_rate: float = 1e-2,
) -> Checked:
    """Check a task with a train stage; without randomness inside the model (dropout 0).

    Args:
        task: as a study names it: built in, registered by a package, or file.py:NAME.
        sections: values of the task's sections, small enough for seconds.
        stages: parameters of the stages that training needs (prepare), by kind; None leaves out one it can do without.
        train: parameters of the train stage beside steps and batch.
        folder: where `file.py` is, and where the task's relative paths start.
        steps: steps of each run; resumed from half of them.
        batch: effective batch; cut into single samples for the check of accumulation.
        overfit_steps: steps in which one batch has to be learnt by heart.
        learning_rate: of that.

    Raises:
        AssertionError: what does not hold, in one sentence.
        ConfigError: a task that cannot be checked so.
    """
    spec = find_task(task, folder=folder)
    stage = spec.stages.get("train")
    if stage is None or not issubclass(stage.parameters, Train):
        raise ConfigError(f"the task {spec.name} has no stage kind train with the lab's training parameters")
    with _bench(spec, task, sections or {}, folder) as bench:
        inputs = bench.prepare(stage, stages or {})
        parameters = {
            "precision": "fp32",
            "checkpoints": {"every": max(1, steps // 2), "keep_every": max(1, steps // 2)},
            **(train or {}),
            "steps": steps,
            "batch": batch,
        }
        whole = bench.run("whole", "train", parameters, inputs)
        found = Checked(loss=_finite(whole), metrics=dict(_result(whole).metrics))
        _same(_weights(bench.resumed(whole, steps // 2)), _weights(whole), exact=True, what="a resumed run")
        if stage.couples is None or not stage.couples(bench.typed, stage.parameters.model_validate(parameters)):
            split = bench.run("split", "train", parameters, inputs, Resources(threads=1, micro_batch=1))
            _same(_weights(split), _weights(whole), exact=False, what="a batch taken in single samples")
        found.overfit = _overfit(RunFolder(whole.path), batch, overfit_steps, learning_rate)
    return found


class _Bench:
    """Orders for one task in a store of its own."""

    def __init__(
        self, spec: TaskSpec, name: str, sections: Mapping[str, Any], folder: str | Path | None, root: Path
    ) -> None:
        self.spec, self._name, self._folder, self._store = spec, name, folder, Store(root)
        self.typed = {key: model.model_validate(sections.get(key, {})) for key, model in spec.sections.items()}

    def prepare(self, stage: StageSpec, stages: Mapping[str, Mapping[str, Any] | None]) -> tuple[Input, ...]:
        """Run the stages that training needs."""
        given = []
        for kind in stage.inputs:
            parameters = stages.get(kind, {})
            if parameters is None:
                continue
            run = self.run("before", kind, parameters, ())
            given.append(Input(reference=kind, stage=kind, kind=kind, key="before", path=str(run.path)))
        return tuple(given)

    def run(
        self,
        name: str,
        kind: str,
        parameters: Mapping[str, Any],
        inputs: tuple[Input, ...],
        resources: Resources | None = None,
    ) -> RunFolder:
        """Do one order here and return its folder, done."""
        stage = self.spec.stages[kind]
        run = self._store.run(f"{kind}-{name}").create()
        order = Order(
            key=name,
            stage=kind,
            kind=kind,
            task=self._name,
            study="check",
            profile="full",
            experiment="check",
            seed=1,
            sections={key: self.typed[key].model_dump(mode="json", by_alias=True) for key in stage.sections},
            parameters=stage.parameters.model_validate(dict(parameters)).model_dump(mode="json", by_alias=True),
            inputs=inputs,
            folder=str(run.path),
            resources=resources or Resources(threads=1),
            study_folder=str(Path(self._folder or ".").resolve()),
        )
        run.write_order(order)
        return _done(run)

    def resumed(self, whole: RunFolder, step: int) -> RunFolder:
        """Return a copy of a run that was cut off after a step and went on from its checkpoint there."""
        cut = self._store.run("train-resumed")
        shutil.copytree(whole.path, cut.path)
        for path in (cut.result_path, cut.state_path, cut.checkpoints / INDEX):
            path.unlink(missing_ok=True)
        kept = cut.checkpoints / name_of(step)
        assert kept.is_dir(), f"there is no checkpoint of step {step} to resume from"
        for other in cut.checkpoints.glob("step-*"):
            if other != kept:
                shutil.rmtree(other)
        order = whole.read_order()
        assert order is not None
        cut.write_order(order.model_copy(update={"folder": str(cut.path), "attempt": 2}))
        return _done(cut)


@contextmanager
def _bench(spec: TaskSpec, name: str, sections: Mapping[str, Any], folder: str | Path | None) -> Iterator[_Bench]:
    threads = torch.get_num_threads()
    root = Path(tempfile.mkdtemp(prefix="ablab-check-"))
    try:
        yield _Bench(spec, name, sections, folder, root)
    finally:
        torch.set_num_threads(threads)
        shutil.rmtree(root, ignore_errors=True)


def _done(run: RunFolder) -> RunFolder:
    if execute(run.order_path) != EXIT_DONE:
        state = run.read_state()
        raise AssertionError(f"{run.name} failed: {state.kind if state else ''}: {state.message if state else ''}")
    return run


def _result(run: RunFolder) -> Any:
    result = run.read_result()
    assert result is not None
    return result


def _finite(run: RunFolder) -> float:
    metrics = _result(run).metrics
    # What is not finite never gets into a result: the guard stops the run before.
    loss = metrics.get("train/loss", next(iter(metrics.values()), None))
    assert loss is not None, "training yields no metric at all"
    return float(loss)


def _weights(run: RunFolder) -> dict[str, Tensor]:
    return load_tensors(find(run.checkpoints, "last") / "model.safetensors")


def _same(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], *, exact: bool, what: str) -> None:
    assert mine.keys() == theirs.keys(), f"{what} has other parameters than an undisturbed one"
    for name, tensor in mine.items():
        other = theirs[name]
        equal = torch.equal(tensor, other) if exact else torch.allclose(tensor, other, rtol=1e-3, atol=1e-5)
        worst = float((tensor.double() - other.double()).abs().max()) if tensor.numel() else 0.0
        how = "bit for bit" if exact else "within rounding"
        hint = (
            "randomness or state outside the model and the seeds it is given"
            if exact
            else "a loss that is no sum over samples, a weight that is not what it sums over, or dropout"
        )
        assert equal, f"{what} does not equal an undisturbed one {how}: {name} differs by {worst:.3g}; look for {hint}"


def _overfit(run: RunFolder, batch: int, steps: int, learning_rate: float) -> tuple[float, float]:
    order = run.read_order()
    assert order is not None
    code = build_code(order)
    model, data = code.model(seed=1), code.data("train")
    one = data.batch(data.order(1, 0)[:batch], seed=1, step=0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate, weight_decay=0)
    losses = []
    for _ in range(steps):
        found = code.losses(model, one)
        loss = found.total / found.weight
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    first, last = losses[0], losses[-1]
    assert last < _LEARNT * first, (
        f"one batch is not learnt by heart: its loss went from {first:.4g} to {last:.4g} in {steps} steps at a rate of "
        f"{learning_rate:g}; look for targets that do not belong to their inputs, or a model that does not train"
    )
    return first, last
