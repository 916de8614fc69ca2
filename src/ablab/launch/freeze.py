"""What a launch leaves on disk before anything runs: study, plan, source, command, environment and git state.

    launches/<id>/  launch.json environment.json git.json study.yaml plan.json
                    launcher.json (while its launcher lives)  launcher.log  templates.log

Workers import from the frozen source, so an edit during a run changes nothing that runs.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablab.contract.failure import DiskFullError
from ablab.launch.options import Options
from ablab.plan.graph import Plan, Run
from ablab.store.files import CorruptFile, read_json, write_json, write_text
from ablab.store.layout import Store
from ablab.store.redact import redact
from ablab.store.retention import disk_free
from ablab.store.snapshot import environment, git_state
from ablab.store.source import freeze_source
from ablab.study.schema import Study


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A launch as it stands on disk. `source` goes first on the import path of workers.

    `new`, `reused` and `superseded` are names of run folders: what is to be run, what is done already, and what the
    study's last plan held that this one does not ask for any more.
    """

    folder: Path
    source: Path
    study_folder: Path
    new: tuple[str, ...]
    reused: tuple[str, ...]
    superseded: tuple[str, ...]

    @property
    def id(self) -> str:
        """Id of the launch."""
        return self.folder.name


def check_disk(plan: Plan, store: Store) -> None:
    """Refuse a launch whose results would not fit.

    Raises:
        DiskFullError: with what is needed and what is free.
    """
    if plan.bytes_left is None:
        return
    free = disk_free(store.root)
    if plan.bytes_left > free:
        raise DiskFullError(
            f"{store.root}: the plan leaves {plan.bytes_left:,} bytes on disk, {free:,} are free; free some space "
            "(`ablab gc` says what it would remove), keep fewer checkpoints (retention), or choose another --store",
            needed=plan.bytes_left,
            free=free,
        )


def freeze(study: Study, plan: Plan, store: Store, *, wanted: Iterable[str], options: Options) -> Frozen:
    """Write down what is launched, and return it.

    Args:
        study: the study.
        plan: its plan.
        store: the store.
        wanted: keys of the runs that were asked for.
        options: what the launch was told.
    """
    study_folder = Path(study.path).resolve().parent if study.path else Path.cwd()
    source = freeze_source(store.root / "sources", study_folder=study_folder, files=_code_files(plan))
    folder = store.new_launch()
    runs = [plan.runs[key] for key in wanted]
    reused = tuple(run.name for run in runs if run.status == "done")
    new = tuple(run.name for run in runs if run.status not in {"done", "planned"})
    whole = options.only is None and options.seeds is None
    superseded = _superseded(study, plan, store) if whole else ()
    record = plan_record(plan)
    write_text(folder / "study.yaml", study.text)
    write_json(folder / "plan.json", record)
    write_json(folder / "environment.json", environment(store=store.root))
    write_json(folder / "git.json", git_state(study_folder))
    write_json(
        folder / "launch.json",
        {
            "format": 1,
            "id": folder.name,
            "time": time.time(),
            "study": study.name,
            "profile": study.profile,
            "path": study.path,
            "overrides": list(study.overrides),
            "command": redact(shlex.join(sys.argv)),
            "options": _plain(options),
            "source": source,
            "new": list(new),
            "reused": list(reused),
            "superseded": list(superseded),
        },
    )
    if whole:
        write_json(store.study_folder(study.name, study.profile) / "plan.json", record)
    return Frozen(
        folder=folder,
        source=Path(source["path"]),
        study_folder=study_folder,
        new=new,
        reused=reused,
        superseded=superseded,
    )


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON values."""
    return {
        "format": 1,
        "study": plan.study.name,
        "profile": plan.study.profile,
        "time": time.time(),
        "seconds_left": plan.seconds_left,
        "seconds_without_sharing": plan.seconds_without_sharing,
        "bytes_left": plan.bytes_left,
        "critical_path": [plan.runs[key].name for key in plan.critical_path if key in plan.runs],
        "runs": [_run_record(run, plan) for run in plan.runs.values()],
    }


def _run_record(run: Run, plan: Plan) -> dict[str, Any]:
    return {
        "name": run.name,
        "key": run.key,
        "stage": run.stage.name,
        "kind": run.stage.kind,
        "seed": run.seed,
        "users": [list(user) for user in run.users],
        "inputs": [[one.reference, plan.runs[one.key].name, one.checkpoint] for one in run.inputs],
        "status": run.status,
        "estimate": run.estimate,
        "estimate_source": run.estimate_source,
        "bytes": run.bytes,
    }


def _superseded(study: Study, plan: Plan, store: Store) -> tuple[str, ...]:
    try:
        before = read_json(store.study_folder(study.name, study.profile) / "plan.json")
        names = [row["name"] for row in before["runs"]]
    except (FileNotFoundError, CorruptFile, KeyError, TypeError):
        return ()
    now = {run.name for run in plan.runs.values()}
    return tuple(name for name in names if name not in now and store.run(name).exists)


def _code_files(plan: Plan) -> list[str]:
    """Return the code files beside Ablab's that compute the plan's stages."""
    found = dict.fromkeys(plan.study.task.files)
    seen: set[int] = set()
    for run in plan.runs.values():
        stage = run.stage
        if id(stage) not in seen and stage.spec.files is not None:
            seen.add(id(stage))
            found.update(dict.fromkeys(stage.spec.files(stage.sections, stage.parameters)))
    return list(found)


def _plain(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}
