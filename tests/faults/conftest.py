"""The real program on the real study, in processes of their own, and what they leave compared bit for bit."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ablab.store.events import read_events
from ablab.store.layout import RunFolder, Store

STUDY = Path(__file__).parents[2] / "studies" / "gpt-oelm.yaml"
ARMS = ("trained", "frozen-orthogonal")
#: Two arms, one seed, dropout so that every random stream counts, and a checkpoint every third step.
OVERRIDES = (
    "seeds=[42]",
    "defaults.model.dropout=0.1",
    "experiments.trained.pipeline.train.steps=90",
    "experiments.trained.pipeline.train.checkpoints.every=3",
    "experiments.trained.pipeline.train.validation.every=15",
)
#: Environment variable by which processes of one launcher are known.
_MARK = "ABLAB_TEST_LAB"


class Lab:
    """A store and the commands that are run on it."""

    def __init__(
        self, root: Path, *, study: Path = STUDY, overrides: tuple[str, ...] = OVERRIDES, arms: tuple[str, ...] = ARMS
    ) -> None:
        self.root = root
        self.arms = arms
        self.study = study
        self.overrides = overrides
        self.env: dict[str, str] = {}
        self.mark = secrets.token_hex(8)

    @property
    def store(self) -> Store:
        return Store(self.root)

    def command(self, *arguments: str) -> list[str]:
        only = [word for arm in self.arms for word in ("--only", arm)]
        options = ["--profile", "smoke", "--store", str(self.root), *only, *arguments]
        return [sys.executable, "-m", "ablab.cli.main", "run", str(self.study), *self.overrides, *options]

    def start(self, command: list[str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start `ablab run` (or another command) as a group of its own; its output can be read line by line."""
        return subprocess.Popen(
            command or self.command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", _MARK: self.mark} | self.env,
            **options,
        )

    def finish(self, process: subprocess.Popen[str], *, code: int = 0) -> str:
        """Wait for a command and return what it printed."""
        text, _ = process.communicate(timeout=280)
        assert process.returncode == code, text
        return text

    def run(self, *arguments: str, code: int = 0) -> str:
        return self.finish(self.start(self.command(*arguments)), code=code)

    def ablab(self, *arguments: str) -> str:
        """Run another command on the store and return its output."""
        whole = [sys.executable, "-m", "ablab.cli.main", *arguments, "--store", str(self.root)]
        return self.finish(self.start(whole))

    def processes(self) -> list[int]:
        """Return every process of this lab: launchers, templates and workers, whoever their parent is by now."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"{_MARK}={self.mark}\0".encode() in path.read_bytes() + b"\0":
                    found.append(int(path.parent.name))
        return found

    def kill(self) -> int:
        """Kill all of them with SIGKILL, until none is left; return how many there were."""
        count = 0
        while True:
            living = [pid for pid in self.processes() if not _is_zombie(pid)]
            if not living:
                return count
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    count += 1
            time.sleep(0.01)

    def runs(self, stage: str | None = None) -> list[RunFolder]:
        return [run for run in self.store.runs() if stage in (None, run.stage)]

    def checkpoints(self, pattern: str) -> list[Path]:
        """Return the checkpoint folders of all runs that match a pattern."""
        return sorted(self.root.glob(f"runs/train-*/checkpoints/{pattern}"))


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def outcome(root: Path) -> dict[str, Any]:
    """Return what the runs of a store came to: weights, prepared data and evaluations byte by byte, numbers, curves."""
    found: dict[str, Any] = {}
    for run in Store(root).runs():
        result = run.read_result()
        assert result is not None, f"{run.name} is not done"
        files = [*run.path.glob("artifacts/**/*"), *run.path.glob("checkpoints/*/model.safetensors")]
        curves = [
            {name: value for name, value in event.items() if name not in ("t", "seconds", "attempt")}
            for event in read_events(run, problems=[])
            if event["e"] in ("step", "validation")
        ]
        found[run.name] = {
            "metrics": result.metrics,
            "best": result.best,
            "facts": result.facts,
            "curves": curves,
            "files": {str(file.relative_to(run.path)): file.read_bytes() for file in files if file.is_file()},
        }
    return found


def verdicts(text: str) -> list[str]:
    """Return the lines of verdict that `ablab run` printed at its end."""
    lines = text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("question: "))
    return [line for line in lines[first:] if not line.startswith("report: ")]


def assert_same(lab: Lab, text: str, undisturbed: Undisturbed) -> None:
    """Compare a store and what was printed at the end with an undisturbed run."""
    ours, theirs = outcome(lab.root), undisturbed.outcome
    assert ours.keys() == theirs.keys()
    for name, run in ours.items():
        for part in ("metrics", "best", "facts", "curves"):
            assert run[part] == theirs[name][part], (name, part)
        assert run["files"].keys() == theirs[name]["files"].keys(), name
        differing = [file for file, content in run["files"].items() if content != theirs[name]["files"][file]]
        assert not differing, (name, differing)
    assert verdicts(text) == undisturbed.verdicts


class Undisturbed:
    """What the study comes to when nothing happens."""

    def __init__(self, lab: Lab) -> None:
        self.text = lab.run()
        self.verdicts = verdicts(self.text)
        self.outcome = outcome(lab.root)
        assert any("ratio" in line and "n = 1" in line for line in self.verdicts), self.verdicts
        assert len(self.outcome) == 5
        weights = [file for run in self.outcome.values() for file in run["files"] if file.endswith("model.safetensors")]
        assert len(weights) >= 2


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(Lab(tmp_path_factory.mktemp("undisturbed") / "lab"))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "lab")
    yield made
    made.kill()


@pytest.fixture
def same() -> Callable[[Lab, str, Undisturbed], None]:
    return assert_same


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Return a function that waits until a condition holds, as long as a process goes on."""

    def wait(condition: Callable[[], object], process: subprocess.Popen[str], *, pause: float = 0.002) -> bool:
        while not condition():
            if process.poll() is not None:
                return False
            time.sleep(pause)
        return True

    return wait


@pytest.fixture
def read_json() -> Callable[[Path], Any]:
    return lambda path: json.loads(path.read_text(encoding="utf-8"))
