"""Where everything stands in the store, and typed reading and writing of a run folder's small files.

    lab/runs/<stage>-<key>/       order.json state.json result.json issues.jsonl claim.json checkpoints/ artifacts/
                                  attempts/<n>/{events.jsonl,log.txt,environment.json,end.json}
    lab/studies/<study>/<profile>/  plan.json report.md ... by-name/<experiment>/seed-42/<stage> -> the run folder
    lab/launches/<id>/            frozen study and plan       lab/sources/<digest>/  frozen source

Events, claims and checkpoints have modules of their own.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ablab.contract.failure import AblabError
from ablab.contract.order import Order
from ablab.contract.result import Result
from ablab.contract.state import State
from ablab.store.files import (
    TEMPORARY,
    CorruptFile,
    append_line,
    check_format,
    publish_json,
    read_bytes,
    read_json,
    read_lines,
    temporary_name,
    write_bytes,
    write_json,
)
from ablab.store.redact import redact

Model = TypeVar("Model", bound=BaseModel)


class AttemptFolder:
    """One attempt at a run: `attempts/<n>/`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def number(self) -> int:
        """Number of the attempt, from 1."""
        return int(self.path.name)

    @property
    def events(self) -> Path:
        """`events.jsonl`: what `ablab.store.events` writes and reads."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """`log.txt`: what the worker printed."""
        return self.path / "log.txt"

    @property
    def environment(self) -> Path:
        """`environment.json`: snapshot of machine and libraries."""
        return self.path / "environment.json"

    @property
    def end(self) -> Path:
        """`end.json`: how the attempt ended."""
        return self.path / "end.json"

    def create(self) -> AttemptFolder:
        """Make the folder if it is not there; return self."""
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def read_end(self) -> dict[str, Any] | None:
        """Return the end record {kind, message, detail, time}; None while there is none."""
        try:
            record = read_json(self.end)
        except FileNotFoundError:
            return None
        if not isinstance(record, dict):
            raise CorruptFile(f"{self.end}: expected a JSON object", file=str(self.end))
        return record


class RunFolder:
    """One run: `runs/<stage>-<key>/`. Making the object touches no disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def __repr__(self) -> str:
        return f"RunFolder({self._path!r})"

    @cached_property
    def path(self) -> Path:
        """The folder."""
        return Path(self._path)

    @property
    def name(self) -> str:
        """Name of the folder: `<stage>-<key>`."""
        return self._path.rpartition("/")[2]

    @property
    def stage(self) -> str:
        """Name of the stage."""
        return self.name.rpartition("-")[0]

    @property
    def key(self) -> str:
        """Key of the run."""
        return self.name.rpartition("-")[2]

    @property
    def order_path(self) -> Path:
        """`order.json`: what the worker was told."""
        return self.path / "order.json"

    @property
    def state_path(self) -> Path:
        """`state.json`: where the run stands."""
        return self.path / "state.json"

    @property
    def result_path(self) -> Path:
        """`result.json`: there when the run is done."""
        return self.path / "result.json"

    @property
    def issues_path(self) -> Path:
        """`issues.jsonl`: rows of the report's issues and resolutions."""
        return self.path / "issues.jsonl"

    @property
    def claim_path(self) -> Path:
        """`claim.json`: who works on the run (`ablab.store.claims`)."""
        return self.path / "claim.json"

    @property
    def checkpoints(self) -> Path:
        """`checkpoints/`: step-00000120/ with a manifest each, and index.json."""
        return self.path / "checkpoints"

    @property
    def artifacts(self) -> Path:
        """`artifacts/`: what the run made for others to read."""
        return self.path / "artifacts"

    @property
    def remake(self) -> RunFolder:
        """`remake/`: where weights that were dropped are made again (`ablab.store.remake`)."""
        return RunFolder(self.path / "remake")

    @property
    def exists(self) -> bool:
        """Whether the folder is there."""
        return self.path.is_dir()

    @property
    def done(self) -> bool:
        """Whether the run is finished: its result is published."""
        return os.access(f"{self._path}/result.json", os.F_OK)

    def create(self) -> RunFolder:
        """Make the folder if it is not there; return self."""
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def attempt(self, number: int) -> AttemptFolder:
        """Return the folder of an attempt, which need not exist."""
        return AttemptFolder(self.path / "attempts" / str(number))

    def attempts(self) -> list[int]:
        """Return the numbers of the attempts there are, ascending."""
        try:
            with os.scandir(f"{self._path}/attempts") as entries:
                names = [entry.name for entry in entries]
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def new_attempt(self) -> AttemptFolder:
        """Make the folder of the next attempt; two callers never get the same one."""
        (self.path / "attempts").mkdir(parents=True, exist_ok=True)
        number = max(self.attempts(), default=0)
        while True:
            number += 1
            folder = self.attempt(number)
            try:
                folder.path.mkdir()
            except FileExistsError:
                continue
            return folder

    def read_order(self) -> Order | None:
        """Return the order; None when there is none. Raises CorruptFile or UnreadableFormat."""
        return _read_model(Order, f"{self._path}/order.json")

    def write_order(self, order: Order) -> None:
        """Write the order."""
        write_json(self.order_path, order)

    def read_state(self) -> State | None:
        """Return where the run stands; None when it never started. Raises CorruptFile or UnreadableFormat."""
        return _read_model(State, f"{self._path}/state.json")

    def known_state(self) -> State | None:
        """Return the state; one that was cut or edited says nothing, and the next attempt writes a new one."""
        try:
            return self.read_state()
        except AblabError:
            return None

    def known_order(self) -> Order | None:
        """Return the order; a damaged one, which the next attempt replaces, counts as none."""
        try:
            return self.read_order()
        except AblabError:
            return None

    def write_state(self, state: State, *, sync: bool = False) -> None:
        """Write where the run stands, secrets in its message hidden.

        Not synced by default: after a power cut an old state is as good.
        """
        if state.message:
            state = state.model_copy(update={"message": redact(state.message)})
        write_bytes(f"{self._path}/state.json", state.model_dump_json().encode() + b"\n", sync=sync)

    def read_result(self) -> Result | None:
        """Return the result; None while the run is not done. Raises CorruptFile or UnreadableFormat."""
        return _read_model(Result, f"{self._path}/result.json")

    def write_result(self, result: Result) -> None:
        """Publish the result: from here on the run is done and never changes. The caller holds the run's claim.

        Raises:
            FileExistsError: the run is done already.
        """
        publish_json(self.result_path, result)

    def append_issue(self, issue: dict[str, Any]) -> None:
        """Append a row of issues and resolutions: `time` is added, secrets are hidden, the rest is the caller's."""
        append_line(self.issues_path, {"time": time.time(), **redact(issue)}, sync=True)

    def read_issues(self) -> list[dict[str, Any]]:
        """Return the rows of issues and resolutions, oldest first."""
        return read_lines(self.issues_path)


class Store:
    """The folder `lab/`. Making the object touches no disk; folders appear when something is written."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).resolve()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def run(self, name: str) -> RunFolder:
        """Return the run folder `<stage>-<key>`, which need not exist."""
        return RunFolder(self.root / "runs" / name)

    def runs(self) -> Iterator[RunFolder]:
        """Yield every run folder, in no particular order."""
        try:
            with os.scandir(self.root / "runs") as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and entry.is_dir():
                        yield RunFolder(entry.path)
        except FileNotFoundError:
            return

    def find(self, prefix: str) -> list[RunFolder]:
        """Return the runs whose name or key starts with `prefix`, sorted by name."""
        found = (run for run in self.runs() if run.name.startswith(prefix) or run.key.startswith(prefix))
        return sorted(found, key=lambda run: run.name)

    def study_folder(self, study: str, profile: str) -> Path:
        """Return the folder of a study's plan, report and links for one profile; it need not exist."""
        return self.root / "studies" / safe_name(study) / safe_name(profile)

    def checklist(self, study: str, profile: str) -> Path:
        """Return the file that holds a study's models and data sets as expected and as found; it need not exist."""
        return self.study_folder(study, profile) / "checklist.json"

    def link(self, study: str, profile: str, experiment: str, seed: int, stage: str, run: str) -> Path:
        """Point `by-name/<experiment>/seed-<n>/<stage>` of a study at a run by a relative link; return the link."""
        folder = self.study_folder(study, profile) / "by-name" / safe_name(experiment) / f"seed-{seed}"
        link = folder / safe_name(stage)
        target = os.path.relpath(self.root / "runs" / run, folder)
        if link.is_symlink() and str(link.readlink()) == target:
            return link
        folder.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(link)
        temporary.symlink_to(target)
        temporary.replace(link)
        return link

    def launch_folder(self, launch: str) -> Path:
        """Return the folder of a launch; it need not exist."""
        return self.root / "launches" / launch

    def launches(self) -> list[Path]:
        """Return the folders of all launches, oldest first."""
        try:
            with os.scandir(self.root / "launches") as entries:
                return sorted(Path(e.path) for e in entries if e.is_dir() and not e.name.startswith(TEMPORARY))
        except FileNotFoundError:
            return []

    def new_launch(self) -> Path:
        """Make the folder of a new launch, named by UTC time, so that names sort by age."""
        while True:
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            folder = self.launch_folder(f"{stamp}-{secrets.token_hex(3)}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder


def open_store(path: str | os.PathLike[str] | None = None) -> Store:
    """Return the store at `path`; None means the variable ABLAB_STORE, else ./lab."""
    return Store(path or os.environ.get("ABLAB_STORE") or "lab")


def safe_name(name: str) -> str:
    """Return a file name for a name of a study; one that had to change carries a hash, so that no two collide."""
    safe = re.sub(r"[^\w.+=@,()-]", "_", name)
    if safe.startswith(".") or not safe:
        safe = f"_{safe}"
    if safe == name and len(name.encode()) <= 200:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{safe.encode()[:180].decode(errors='ignore')}-{digest}"


def _read_model(model: type[Model], path: str) -> Model | None:
    """Read a JSON file into a contract model, in one pass where all is well."""
    try:
        data = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        check_format(read_json(path), path)
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "top level"
        raise CorruptFile(
            f"{path}: {where}: {first['msg']}; the file was edited or written by another program", file=path
        ) from error
