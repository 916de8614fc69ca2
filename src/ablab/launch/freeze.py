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
from ablab.contract.local_imports import with_imports
from ablab.launch.options import Options
from ablab.launch.secrets import check_secrets
from ablab.plan.describe import changes, freeze_plan
from ablab.plan.graph import Plan
from ablab.store.files import write_json, write_text
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

    Raises:
        ConfigError: a secret would be written down.
    """
    study_folder = Path(study.path).resolve().parent if study.path else Path.cwd()
    files = with_imports(_code_files(plan), study_folder)
    wanted = list(wanted)
    check_secrets(study, (plan.runs[key] for key in wanted), folder=study_folder, files=files)
    source = freeze_source(store.root / "sources", study_folder=study_folder, files=files)
    folder = store.new_launch()
    whole = options.only is None and options.seeds is None
    found = changes(plan, store, wanted=None if whole else set(wanted))
    new = (*found.new, *found.left)
    write_text(folder / "study.yaml", redact(study.text))
    freeze_plan(plan, store, folder, whole=whole)
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
            "overrides": redact(list(study.overrides)),
            "command": redact(shlex.join(sys.argv)),
            "options": _plain(options),
            "source": source,
            "new": list(new),
            "reused": list(found.reused),
            "superseded": list(found.superseded),
        },
    )
    return Frozen(
        folder=folder,
        source=Path(source["path"]),
        study_folder=study_folder,
        new=new,
        reused=found.reused,
        superseded=found.superseded,
    )


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
