"""A store as a launch leaves it, written by hand in a moment: real plan, real formats, made-up numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablab.contract.order import Input, Numerics, Resources
from ablab.contract.result import Best, Result
from ablab.contract.state import State
from ablab.launch.freeze import freeze
from ablab.launch.options import Options
from ablab.launch.orders import Common, build_order
from ablab.plan.graph import Plan, Run
from ablab.plan.planning import make_plan
from ablab.store.events import EventWriter
from ablab.store.layout import RunFolder, Store
from ablab.study.loading import load
from ablab.study.schema import Study

STUDY = Path(__file__).parents[2] / "studies" / "gpt-oelm.yaml"
#: How much worse each arm is than the first one; others are as good.
FACTORS = {"frozen-orthogonal": 1.01, "blind": 1.5}
EVERY, STEPS = 5, 20

Numbers = Callable[[str, int], float]


def smoke() -> Study:
    return load(STUDY, profile="smoke")


def usual(experiment: str, seed: int) -> float:
    """Return a final loss: the arm's own, a shift that seeds share, and a little of both."""
    return 2.0 * FACTORS.get(experiment, 1.0) + 0.1 * math.sin(seed) + 0.002 * math.cos(seed * len(experiment))


def fill(
    store: Store,
    study: Study,
    *,
    numbers: Numbers = usual,
    status: Mapping[tuple[str, int | None, str], str] | None = None,
    now: float | None = None,
) -> Plan:
    """Write every run of a study into a store and return the plan as it stands then.

    Args:
        numbers: final loss of an arm and seed.
        status: where runs stand that are not done, by (experiment, seed, stage); "pending" writes nothing.
        now: Unix time at which the runs finished.
    """
    plan = make_plan(study, store)
    now = time.time() if now is None else now
    for run in plan.runs.values():
        if run.status == "planned":
            continue
        stands = (status or {}).get((run.experiment, run.seed, run.stage.name), "done")
        if stands != "pending":
            write_run(store, plan, run, numbers(run.experiment, run.seed or 0), stands, now)
    return make_plan(study, store)


def write_run(store: Store, plan: Plan, run: Run, loss: float, status: str, now: float) -> RunFolder:
    folder = store.run(run.name).create()
    order = build_order(run, plan=plan, store=store, common=Common(), resources=Resources())
    folder.write_order(order)
    assert all(isinstance(each, Input) for each in order.inputs)
    done, share = status == "done", 1.0 if status == "done" else 0.5
    trains = run.stage.name == "train"
    steps = round(STEPS * share)
    with EventWriter(folder.attempt(1).create().events) as events:
        events.log("start", step=0, pid=1, host="here")
        for step in range(1, steps + 1) if trains else ():
            events.log("step", step=step, loss=at_step(loss, step), lr=1e-3)
            if step % EVERY == 0:
                events.log("validation", step=step, seconds=0.1, values=scores("val", at_step(loss, step)))
        if done:
            events.log("end", kind="done", message="")
    metrics = scores("val" if trains else "test", loss) if run.stage.name != "prepare" else {}
    if done:
        facts = {"parameters.total": 1000, "parameters.trained": 800 if "frozen" in run.experiment else 1000}
        folder.write_result(
            Result(
                key=run.key,
                metrics=metrics,
                best={name: Best(value=value, step=steps) for name, value in metrics.items()} if trains else {},
                facts=facts if trains else {},
                time={"forward-backward": 50.0, "other": 10.0},
                steps={"median": 0.1} if trains else {},
                peak={"rss": 2**30},
                numerics=Numerics(threads=1),
            )
        )
    failure = {"failed": ("not-finite", "loss is not finite at step 7"), "waiting": ("memory-taken", "somebody else")}
    kind, message = failure.get(status, (None, ""))
    folder.write_state(
        State(
            status=status,  # type: ignore[arg-type]
            updated=now,
            started=now - 60,
            finished=now if status in ("done", "failed", "stopped") else None,
            step=steps,
            steps=STEPS,
            progress=share,
            loss=loss if trains else None,
            best={"val/loss": loss} if trains else {},
            kind=kind,
            message=message,
            rss=2**30,
            device="cpu",
        )
    )
    if status == "failed":
        folder.append_issue({"kind": kind, "message": message, "resolution": "stopped", "attempt": 1, "time": now})
    return folder


def at_step(final: float, step: int) -> float:
    return final + 3.0 * math.exp(-step / 4)


def scores(split: str, loss: float) -> dict[str, float]:
    return {f"{split}/loss": loss, f"{split}/perplexity": math.exp(loss)}


def frozen_launch(store: Store, study: Study, plan: Plan, **options: Any) -> str:
    """Write down a launch of the study as `ablab run` does, and return its id."""
    return freeze(study, plan, store, wanted=list(plan.runs), options=Options(**options)).id
