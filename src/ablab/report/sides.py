"""What a person may compare: an arm, an arm at one seed, or a single run; found in the store, with what it holds.

An arm comes from the study file where one is given. Otherwise it comes from the newest launch that ran it, whose study
text and plan are frozen in the store, so that a comparison needs nothing but the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablab.analysis.curves import curves
from ablab.contract.failure import AblabError, ConfigError
from ablab.report.names import unknown
from ablab.store.events import read_events
from ablab.store.files import read_json
from ablab.store.layout import RunFolder, Store

if TYPE_CHECKING:
    from ablab.analysis.results import Curve
    from ablab.contract.order import Order
    from ablab.contract.result import Result
    from ablab.study.schema import Experiment, Study

#: (experiment, seed, stage) of every run of a plan, and its folder's name.
Runs = Mapping[tuple[str, int, str], str]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A study as something ran it: the study, the runs of its plan, and where that is from."""

    study: Study
    runs: Runs
    name: str


@dataclass(frozen=True)
class Stored:
    """One run with what its folder holds, read once when it is needed."""

    folder: RunFolder

    @cached_property
    def order(self) -> Order | None:
        """What the run was asked."""
        return self.folder.read_order()

    @cached_property
    def result(self) -> Result | None:
        """What came out; None while it is not done."""
        return self.folder.read_result()

    @cached_property
    def curves(self) -> Mapping[str, Curve]:
        """Its curves by name; lines that cannot be read are left out."""
        return curves(read_events(self.folder, problems=[]))

    @property
    def status(self) -> str:
        """Where it stands, in a word."""
        if self.result is not None:
            return "done"
        state = self.folder.read_state()
        return "not started" if state is None else state.status


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison.

    Args:
        name: as it is shown.
        runs: for every seed (None for a single run) its runs in the order of the pipeline.
        experiment, study: of an arm; None for a single run.
        source: where it was found.
    """

    name: str
    runs: Mapping[int | None, tuple[Stored, ...]]
    experiment: Experiment | None = None
    study: Study | None = None
    source: str = ""
    seed: int | None = field(default=None)

    @property
    def is_arm(self) -> bool:
        """Whether it is an arm and not a single run."""
        return self.experiment is not None

    def metrics(self) -> dict[str, dict[int | None, float]]:
        """Return complete values by metric and seed; of several stages the last that yields a metric counts."""
        found: dict[str, dict[int | None, float]] = {}
        for seed, runs in self.runs.items():
            for run in runs:
                for metric, value in (run.result.metrics if run.result is not None else {}).items():
                    found.setdefault(metric, {})[seed] = value
        return found

    def curves(self) -> dict[str, dict[int | None, Curve]]:
        """Return curves by name and seed; of several stages the last that has one counts."""
        found: dict[str, dict[int | None, Curve]] = {}
        for seed, runs in self.runs.items():
            for run in runs:
                for name, curve in run.curves.items():
                    found.setdefault(name, {})[seed] = curve
        return found

    def all_runs(self) -> list[Stored]:
        """Return every run once."""
        return list({run.folder.name: run for runs in self.runs.values() for run in runs}.values())


def find_sides(store: Store, texts: Sequence[str], study: Source | None = None) -> list[Side]:
    """Return the sides that a person named.

    Args:
        store: where the runs are.
        texts: EXPERIMENT, EXPERIMENT/seed, EXPERIMENT/seed/stage, or a run's folder name, key, or its beginning.
        study: where arms are looked for; None takes the newest launch that ran all of them, else each one's newest.

    Raises:
        ConfigError: a name that means nothing, or more than one run.
    """
    sources = [study] if study is not None else None
    arms = [text.partition("/")[0] for text in texts]
    runs = [None if study is not None and arm in study.study.experiments else _run(store, t)
            for t, arm in zip(texts, arms, strict=True)]  # fmt: skip
    wanted = [arm for arm, run in zip(arms, runs, strict=True) if run is None]
    if sources is None:
        sources = _launched(store, wanted) if wanted else []
    sides = [
        _run_side(run) if run is not None else _arm_side(store, text, sources)
        for text, run in zip(texts, runs, strict=True)
    ]
    if len({side.is_arm for side in sides}) > 1:
        sides = _as_runs(sides)
    return sides


def planned_source(study: Study, store: Store) -> Source:
    """Return a study as it would run now."""
    from ablab.plan.planning import make_plan

    plan = make_plan(study, store)
    return Source(study=study, runs={user: plan.runs[key].name for user, key in plan.by_user.items()}, name=study.path)


def _run(store: Store, text: str) -> RunFolder | None:
    """Return the run of this name or key, or the only one that begins so; an arm's name comes first."""
    exact = store.run(text)
    if "/" not in text and exact.exists:
        return exact
    # Keys are hex of some length: a short word is an arm's name, not the beginning of a key.
    name, _, key = text.rpartition("-")
    if "/" in text or len(key) < 4 or not all(c in "0123456789abcdef" for c in key) or (name and not key):
        return None
    found = store.find(text)
    if len(found) > 1:
        listed = ", ".join(run.name for run in found[:6])
        raise ConfigError(f"{text!r} matches {len(found)} runs: {listed}; name one")
    return found[0] if found else None


def _run_side(folder: RunFolder) -> Side:
    run = Stored(folder)
    order = run.order
    if order is None:
        return Side(name=folder.name, runs={None: (run,)}, source=str(folder.path))
    seed = "" if order.seed is None else f" seed {order.seed}"
    name = f"{order.experiment}{seed} {order.stage} ({folder.key[:8]})"
    return Side(name=name, runs={None: (run,)}, seed=order.seed, source=str(folder.path))


def _arm_side(store: Store, text: str, sources: Iterable[Source]) -> Side:
    name, _, rest = text.partition("/")
    seed_text, _, stage = rest.partition("/")
    known: dict[str, None] = {}
    for source in sources:
        known.update(dict.fromkeys(source.study.experiments))
        if name in source.study.experiments:
            return _side_of(store, source, name, seed_text, stage)
    raise ConfigError(
        unknown("run or experiment", text, [*known, *(folder.name for folder in store.runs())], of=str(store.root))
    )


def _side_of(store: Store, source: Source, name: str, seed_text: str, stage: str) -> Side:
    experiment = source.study.experiments[name]
    seeds = sorted({seed for arm, seed, _ in source.runs if arm == name})
    if seed_text:
        chosen = seed_text.removeprefix("seed-")
        if chosen not in map(str, seeds):
            raise ConfigError(f"{name} has no seed {seed_text}; it has {', '.join(map(str, seeds))}")
        seeds = [int(chosen)]
    stages = [each.name for each in experiment.stages]
    if stage:
        if stage not in stages:
            raise ConfigError(unknown("stage", stage, stages, of=name))
        folder = store.run(source.runs[name, seeds[0], stage])
        if not folder.exists:
            raise ConfigError(f"{name} seed {seeds[0]} {stage} has not started: {folder.path} does not exist")
        return _run_side(folder)
    runs: dict[int | None, tuple[Stored, ...]] = {}
    for seed in seeds:
        folders = [store.run(source.runs[name, seed, each]) for each in stages if (name, seed, each) in source.runs]
        runs[seed] = tuple(Stored(folder) for folder in folders if folder.exists)
    shown = f"{name} seed {seeds[0]}" if seed_text else name
    return Side(
        name=shown,
        runs={seed: found for seed, found in runs.items() if found},
        experiment=experiment,
        study=source.study,
        source=source.name,
        seed=seeds[0] if seed_text else None,
    )


def _as_runs(sides: Sequence[Side]) -> list[Side]:
    """Take of an arm the run that a single run beside it can be compared with: its stage, and its seed if there."""
    (run,) = (each for side in sides if not side.is_arm for each in side.all_runs())
    found = []
    for side in sides:
        if not side.is_arm:
            found.append(side)
            continue
        seed = None if run.order is None else run.order.seed
        rows = side.runs.get(seed) or next(iter(side.runs.values()), ())
        same = [each for each in rows if each.folder.stage == run.folder.stage]
        if not same:
            raise ConfigError(
                f"{side.name} has no run of the stage {run.folder.stage} to compare {run.folder.name} with"
            )
        found.append(_run_side(same[0].folder))
    return found


def _launched(store: Store, names: Sequence[str]) -> list[Source]:
    """Return the newest launch that ran all of these experiments, else the newest launch of each that one ran."""
    missing = dict.fromkeys(names)
    found: list[Source] = []
    for folder in reversed(store.launches()):
        runs = _recorded(folder)
        there = {name for name, _, _ in runs}
        if not there.intersection(missing) and not there.issuperset(names):
            continue
        source = _frozen(folder, runs)
        if source is None:
            continue
        if there.issuperset(names):
            return [source, *found]
        found.append(source)
        for name in there.intersection(missing):
            del missing[name]
    return found


def _recorded(folder: Path) -> dict[tuple[str, int, str], str]:
    """Return the runs of the plan that a launch wrote down."""
    try:
        rows = read_json(folder / "plan.json")["runs"]
        return {(str(user[0]), int(user[1]), row["stage"]): row["name"] for row in rows for user in row["users"]}
    except (FileNotFoundError, AblabError, KeyError, TypeError, ValueError, IndexError):
        return {}


def _frozen(folder: Path, runs: dict[tuple[str, int, str], str]) -> Source | None:
    """Return the study of a launch from its frozen text; None where it cannot be read any more."""
    from ablab.study.loading import load_text

    try:
        record: Any = read_json(folder / "launch.json")
        text = (folder / "study.yaml").read_text(encoding="utf-8")
        study = load_text(
            text,
            path=record.get("path") or folder / "study.yaml",
            profile=record["profile"],
            overrides=tuple(record.get("overrides", ())),
        )
    except (OSError, AblabError, KeyError, TypeError):
        return None
    return Source(study=study, runs=runs, name=f"launch {folder.name}")
