"""Studies and results built by hand, so that the statistics are tested apart from loading and the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from ablab.analysis.results import Arm, Curve, Results, RunRecord, Value
from ablab.contract.base import Strict
from ablab.contract.task import StageSpec, TaskSpec
from ablab.study.schema import Comparison, Condition, Criterion, Experiment, Stage, Study

METRIC = "val/perplexity"
SPEC = StageSpec(kind="train", parameters=Strict, run="nothing:at_all", metrics=("val/*",))
TASK = TaskSpec(name="toy", title="Toy", sections={}, stages={"train": SPEC}, pipeline={"train": {}})


def condition(text: str, metric: str = METRIC) -> Condition:
    quantity, operator, number = text.split()
    return Condition(metric=metric, quantity=quantity, operator=operator, number=float(number))  # type: ignore[arg-type]


def make(
    values: Mapping[str, Sequence[float | None]],
    *,
    criterion: str = "ratio <= 1.05",
    conditions: Sequence[Condition] | None = None,
    fail: Sequence[str] = (),
    passing: Sequence[str] = (),
    constants: Sequence[str] = (),
    diverged: Mapping[str, Sequence[int]] | None = None,
    planned: Sequence[str] = (),
    metric: str = METRIC,
    others: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    **options: object,
) -> tuple[Study, Results]:
    """Return study and results; the first arm is the baseline, seeds are 1, 2, 3, ... and None is a missing value."""
    count = max(map(len, values.values()))
    seeds = tuple(range(1, count + 1))
    stage = Stage(name="train", kind="train", spec=SPEC, needs=(), sections={}, parameters=Strict())
    experiments = {
        name: Experiment(name=name, stages=(stage,), config={}, seeds=seeds, planned=name in planned) for name in values
    }
    baseline, *rest = values
    comparison = Comparison(
        name="main",
        baseline=baseline,
        variants=tuple(name for name in rest if name not in (*fail, *passing)),
        factor=("model",),
        metric=metric,
        criterion=Criterion(text=criterion, conditions=tuple(conditions or (condition(criterion, metric),))),
        fail_controls=tuple(fail),
        pass_controls=tuple(passing),
        **options,  # type: ignore[arg-type]
    )
    study = Study(name="toy", question="?", task=TASK, seeds=seeds, experiments=experiments, comparisons=(comparison,))
    arms = []
    for name, numbers in values.items():
        for seed, number in zip(seeds, numbers, strict=False):
            own = {metric: number} | {m: found[name][seed - 1] for m, found in (others or {}).items()}
            lost = seed in (diverged or {}).get(name, ())
            arms.append(
                Arm(
                    experiment=name,
                    seed=seed,
                    status="failed" if lost else "done" if number is not None else "pending",
                    failure="not-finite" if lost else None,
                    seeded=frozenset() if name in constants else frozenset(own),
                    values={m: Value(metric=m, last=v, key=f"{name}-{seed}") for m, v in own.items() if v is not None},
                )
            )
    return study, Results(study=study, arms=tuple(arms))


@pytest.fixture(name="make", scope="session")
def make_fixture() -> Callable[..., tuple[Study, Results]]:
    return make


@pytest.fixture(name="condition")
def condition_fixture() -> Callable[..., Condition]:
    return condition


@pytest.fixture
def record() -> Callable[..., RunRecord]:
    """Return a maker of run records with only what a test says."""

    def build(key: str, **fields: object) -> RunRecord:
        base: dict[str, object] = {
            "key": key, "name": f"train-{key}", "stage": "train", "kind": "train", "seed": 1,
            "users": (("A", 1),), "status": "done",
        }  # fmt: skip
        return RunRecord(**(base | fields))  # type: ignore[arg-type]

    return build


@pytest.fixture
def curve() -> Callable[..., Curve]:
    def build(points: Mapping[int, float], name: str = METRIC) -> Curve:
        return Curve(name=name, steps=tuple(points), values=tuple(points.values()))

    return build
