"""A small lab around the fake worker: studies made of fake stages, planned and launched through the real code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.base import Strict
from ablab.contract.select import SELECT, Select
from ablab.contract.task import StageSpec, TaskSpec
from ablab.launch.executors.base import Program
from ablab.launch.launcher import Machine, launch
from ablab.launch.options import LaunchSummary, Notice, Options
from ablab.plan.graph import Plan
from ablab.plan.planning import make_plan
from ablab.store.files import read_lines
from ablab.store.layout import RunFolder, Store
from ablab.study.schema import Compute, Experiment, Need, Stage, Study
from tests.launch.hook import Hook

# Tests and processes they start know this module under one name.
sys.modules.setdefault("lab_of_tests", sys.modules[__name__])

FAKE = Path(__file__).with_name("fake_worker.py")
PROGRAM = Program(worker=(str(FAKE),), template=(str(FAKE), "template"))


class Fake(Strict):
    """Parameters of every fake stage; what they mean is `fake_worker.Script`'s."""

    tag: str = ""
    steps: int = 3
    seconds: float = 0.0
    every: int = 1
    batch: int = 8
    memory: int | None = None
    fails: dict[str, str] | None = None
    fails_while: str = ""
    fails_with: str = "disk-full"
    rehearsal: str = ""
    deaf: bool = False
    gate: bool = False
    says: str = ""


def spec(kind: str, **values: Any) -> StageSpec:
    return StageSpec(kind=kind, parameters=Fake, run=f"fake:{kind}", **values)


def _steps(_: Any, parameters: Any) -> int:
    return int(parameters.steps)


def _batch(_: Any, parameters: Any) -> int:
    return int(parameters.batch)


SPECS = {
    s.kind: s
    for s in (
        spec("prepare", seeded=False, accelerator=False),
        spec("train", inputs=("prepare",), steps=_steps, effective_batch=_batch, makes_checkpoints=True),
        spec("contrast", steps=_steps, effective_batch=_batch, couples=lambda *_: True, makes_checkpoints=True),
        spec("evaluate", seeded=False, inputs=("train",)),
    )
}
TASK = TaskSpec(name="fake", title="Fake", sections={}, stages=SPECS, pipeline={})


def stage(name: str, *needs: str, kind: str = "", **parameters: Any) -> Stage:
    """Return a fake stage; a need is `stage` or `experiment.stage`."""
    links = []
    for need in needs:
        experiment, _, other = need.rpartition(".")
        links.append(Need(experiment=experiment or None, stage=other, text=need))
    chosen = SPECS[kind or name]
    return Stage(
        name=name, kind=chosen.kind, spec=chosen, needs=tuple(links), sections={}, parameters=Fake(**parameters)
    )


def select(name: str = "select", *needs: str, **sweep: tuple[Any, ...]) -> Stage:
    """Return a select stage that tries values of parameters of the train stage."""
    parameters = Select(sweep={f"pipeline.train.{path}": values for path, values in sweep.items()})
    links = tuple(Need(experiment=None, stage=need, text=need) for need in needs)
    return Stage(name=name, kind="select", spec=SELECT, needs=links, sections={}, parameters=parameters)


def pipelines(count: int = 6, **values: Any) -> list[Experiment]:
    """Return experiments that share their data, train and evaluate."""
    values = {"steps": 6, "seconds": 0.02, **values}
    return [
        experiment(
            f"E{n}", stage("prepare"), stage("train", "prepare", tag=f"{n}", **values), stage("evaluate", "train")
        )
        for n in range(count)
    ]


def experiment(name: str, *stages: Stage, **values: Any) -> Experiment:
    return Experiment(name=name, stages=stages, config={}, **values)


class Lab:
    """A store with a study in it, and what happened there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "lab")
        self.study: Study | None = None
        self.notices: list[Notice] = []

    def ask(self, *experiments: Experiment, seeds: tuple[int, ...] = (1,), **compute: Any) -> Plan:
        """Make these experiments the study."""
        self.study = Study(
            name="fake",
            question="",
            task=TASK,
            seeds=seeds,
            experiments={e.name: e for e in experiments},
            comparisons=(),
            compute=Compute(**{"rehearse": False, **compute}),
            text="name: fake\n",
        )
        return self.plan()

    def plan(self) -> Plan:
        assert self.study is not None
        return make_plan(self.study, self.store)

    def launch(
        self, plan: Plan | None = None, *, machine: dict[str, Any] | None = None, **options: Any
    ) -> LaunchSummary:
        """Launch what is left; notices of it are kept."""
        assert self.study is not None
        self.notices = []
        return launch(
            self.study,
            plan or self.plan(),
            self.store,
            Options(**{"poll": 0.05, "devices": "cpu", **options}),
            on_event=self._hear,
            replan=self.plan,
            machine=Machine(**{"cores": 2, "program": PROGRAM, **(machine or {})}),
        )

    def _hear(self, notice: Notice) -> None:
        self.notices.append(notice)
        with (self.root / "notices").open("a") as file:
            file.write(f"{os.getpid()} {notice.kind}\n")

    def heard(self, kind: str) -> int:
        """Return how often any launch, in whatever process, said something of this kind."""
        file = self.root / "notices"
        return sum(line.split()[1] == kind for line in file.read_text().splitlines()) if file.exists() else 0

    def open_gate(self) -> None:
        """Let the workers go on that wait."""
        (self.root / "open").touch()

    def run(self, experiment: str, stage: str = "train", seed: int = 1) -> RunFolder:
        found = self.plan().run_of(experiment, seed, stage)
        assert found is not None
        return self.store.run(found.name)

    def value(self, experiment: str, stage: str = "train", seed: int = 1) -> float:
        result = self.run(experiment, stage, seed).read_result()
        assert result is not None, f"{experiment} {stage} is not done"
        return result.metrics["val/loss"]

    def values(self) -> dict[str, float | None]:
        results = {run.name: self.store.run(run.name).read_result() for run in self.plan().runs.values()}
        return {name: result.metrics["val/loss"] if result else None for name, result in results.items()}

    def starts(self, mode: str = "run") -> list[str]:
        """Return the runs in the order in which workers started on them."""
        return self._log("starts.jsonl", mode)

    def ends(self, mode: str = "run") -> list[str]:
        return self._log("ends.jsonl", mode)

    def _log(self, name: str, mode: str) -> list[str]:
        return [line["run"] for line in read_lines(self.store.root / name) if line["mode"] == mode]

    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.notices if notice.kind != "tick"]

    def texts(self) -> str:
        return "\n".join(notice.text for notice in self.notices)

    def pids(self) -> list[int]:
        """Return the processes of all workers that have begun, in the order in which they did."""
        paths = [run.attempt(number).environment for run in self.store.runs() for number in run.attempts()]
        begun = sorted((path.stat().st_mtime_ns, path) for path in paths if path.exists())
        return [json.loads(path.read_text())["pid"] for _, path in begun]


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: a killed process loses nothing that it has written, synced or not."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setenv("FAKE_UNSYNCED", "1")


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frozen source, shared by the stores of all tests: copying it takes a second."""
    return tmp_path_factory.mktemp("sources")


@pytest.fixture
def lab(tmp_path: Path, sources: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    made.store.root.mkdir()
    (made.store.root / "sources").symlink_to(sources)
    yield made
    for pid in made.pids():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Return a function that waits until a condition holds, and fails when it does not within `seconds`."""

    def wait(condition: Callable[[], Any], *, seconds: float = 60.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)
        return value

    return wait


@pytest.fixture
def elsewhere(lab: Lab) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Return a function that runs Python code in a process of its own, with `lab` and this module's names in it."""
    started: list[subprocess.Popen[str]] = []

    def run(code: str) -> subprocess.Popen[str]:
        head = (
            f"import importlib.util, sys; from pathlib import Path\n"
            f"spec = importlib.util.spec_from_file_location('lab_of_tests', {str(Path(__file__))!r})\n"
            f"module = importlib.util.module_from_spec(spec); sys.modules['lab_of_tests'] = module\n"
            f"spec.loader.exec_module(module); from lab_of_tests import *\n"
            f"lab = Lab(Path({str(lab.root)!r}))\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", head + code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None and not process.stdout.closed:
            print(process.stdout.read())  # shown by pytest where the test failed
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    """Return a webhook on this machine."""
    made = Hook()
    yield made
    made.close()
