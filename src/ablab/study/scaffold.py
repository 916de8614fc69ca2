"""`ablab new`: a first study file that runs as it is, from the task's own example or a copy of a built-in study."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import ablab
from ablab.contract.failure import ConfigError
from ablab.contract.registry import nearest
from ablab.contract.task import TaskSpec


def scaffold(task: TaskSpec, *, name: str) -> str:
    """Return the text of a study called `name` for a task.

    Raises:
        ConfigError: when the task ships no example.
    """
    if task.name == "command":
        raise ConfigError('give the command line: ablab new STUDY --command "python train.py --lr 3e-4 --seed 1"')
    if task.scaffold is None:
        raise ConfigError(f"the task {task.name} ships no example study; start from one in studies/, or from its docs")
    package, _, file = task.scaffold.partition(":")
    return files(package).joinpath(file).read_text(encoding="utf-8").replace("{name}", name)


def built_in_studies() -> dict[str, Path]:
    """Return the files of the studies that come with Ablab, by name."""
    package = Path(ablab.__file__).parent
    # A wheel holds them inside the package; a clone, beside its sources.
    folder = next(each for each in (package / "studies", package.parents[1] / "studies") if each.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def built_in_study(name: str) -> str:
    """Return the text of a built-in study, comments and all.

    Raises:
        ConfigError: there is none of this name.
    """
    known = built_in_studies()
    if name not in known:
        close = nearest(name, known)
        hint = f"; did you mean {close}?" if close else ""
        raise ConfigError(f"no built-in study is called {name!r}: there are {', '.join(known)}{hint}")
    return known[name].read_text(encoding="utf-8")
