"""What a plan says about commands: which of them start at zero when they are killed."""

from __future__ import annotations

from ablab.contract.command import Command
from ablab.plan.graph import Plan


def command_lines(plan: Plan) -> list[str]:
    """Return a line on the commands that are left and declare no way to resume; none where every one does."""
    names = dict.fromkeys(
        run.stage.name
        for run in plan.runs.values()
        if run.status not in ("done", "planned")
        and isinstance(run.stage.parameters, Command)
        and run.stage.parameters.resume is None
    )
    if not names:
        return []
    stages = ", ".join(names)
    return [f"a killed run of {stages} starts at zero: its command declares no `resume:`"]
