"""How many runs go side by side on this machine, and with how many threads each.

Threads come from the whole plan, never from what happens to be left of it, so that a relaunch computes a run with the
threads it would have had before. `threads x workers` never exceeds the cores: oversubscribed OpenMP teams livelock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ablab.contract.order import Resources
from ablab.plan.graph import Plan, Run
from ablab.study.schema import Compute


def is_wide(run: Run) -> bool:
    """Whether a run is one of many of its kind, by its accelerator or its seed; a prepare stage is not."""
    return run.stage.spec.accelerator or run.seed is not None


def widest_levels(plan: Plan) -> dict[bool, int]:
    """Return the most runs that one depth of the plan holds, of wide runs (True) and of the others (False)."""
    depth: dict[str, int] = {}
    counts: Counter[tuple[bool, int]] = Counter()
    for key, run in plan.runs.items():
        depth[key] = 1 + max((depth.get(given.key, 0) for given in run.inputs), default=-1)
        counts[is_wide(run), depth[key]] += 1
    return {wide: max((n for (kind, _), n in counts.items() if kind is wide), default=0) for wide in (True, False)}


@dataclass(frozen=True, kw_only=True)
class Threads:
    """Threads of each process of a run: of a wide run on the CPU, of one on a GPU, and of any other run."""

    wide: int
    gpu: int
    other: int

    def of(self, run: Run, *, on_gpu: bool) -> int:
        """Return the threads of each process of `run`."""
        if not is_wide(run):
            return self.other
        return self.gpu if on_gpu else self.wide


def plan_threads(plan: Plan, *, machine: int, gpus: int, compute: Compute) -> Threads:
    """Return the threads of the plan's runs.

    Args:
        plan: the whole plan, done runs included.
        machine: cores.
        gpus: runs that GPUs take side by side; 0 on a machine without.
        compute: the study's own wishes, which win.
    """
    width = widest_levels(plan)
    side_by_side = min(machine, compute.slots or max(1, width[True]))
    wide = compute.threads or max(1, machine // side_by_side // compute.processes)
    other = max(1, machine // min(machine, max(1, width[False])))
    # Beside runs on GPUs, one part of the cores is left for stages that need none.
    gpu = compute.threads or max(1, machine // (gpus + (1 if width[False] else 0)) if gpus else 1)
    return Threads(wide=min(wide, machine), gpu=min(gpu, machine), other=other)


class Slots:
    """The cores of this machine and what is left of them.

    Args:
        machine: cores.
        limit: runs without a GPU side by side, at most; None leaves it to the cores.
    """

    def __init__(self, *, machine: int, limit: int | None = None) -> None:
        self.machine = machine
        self.limit = limit
        self._held: dict[str, tuple[int, bool]] = {}

    @property
    def free(self) -> int:
        """Cores that no run holds."""
        return self.machine - sum(demand for demand, _ in self._held.values())

    def fits(self, resources: Resources) -> bool:
        """Whether a run with these resources may start; one that wants more than the machine has starts alone."""
        beside = sum(on_cpu for _, on_cpu in self._held.values())
        if self.limit is not None and not resources.devices and beside >= self.limit:
            return False
        return self.demand(resources) <= self.free

    def take(self, name: str, resources: Resources) -> None:
        """Account a run that is going on, fitting or not (an adopted one is there already)."""
        self._held[name] = (self.demand(resources), not resources.devices)

    def give(self, name: str) -> None:
        """Return the cores of a run."""
        self._held.pop(name, None)

    def demand(self, resources: Resources) -> int:
        """Return the cores a run takes: threads of all its processes, at most the machine."""
        return min(self.machine, resources.threads * resources.world_size)
