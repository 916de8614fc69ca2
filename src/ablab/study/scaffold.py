"""`ablab new`: a first study file that runs as it is, from the task's own example."""

from __future__ import annotations

from importlib.resources import files

from ablab.contract.failure import ConfigError
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
