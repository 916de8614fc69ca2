"""What the task `command` declares: one section of free parameters, and pipelines of command stages.

An arm reads `big: {like: base, parameters: {lr: 1e-3}}`, a factor `parameters.lr`. The stage kind itself, which other
tasks' pipelines may hold too, is declared in `ablab.contract.command`.
"""

from __future__ import annotations

import dataclasses

from ablab.contract.base import Open
from ablab.contract.command import COMMAND, SECTION
from ablab.contract.task import TaskSpec


class Parameters(Open):
    """The parameters of an arm, by names of the user's own; each stands as {name} in a command."""


SPEC = TaskSpec(
    name="command",
    title="A program of one's own",
    sections={SECTION: Parameters},
    stages={COMMAND.kind: dataclasses.replace(COMMAND, sections=(SECTION,))},
    pipeline={},
)
