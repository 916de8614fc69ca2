"""Where a run may go now: cores of this machine, a GPU of this machine, or the queue of a cluster.

Joins `slots` and `devices`; decides nothing about order.
"""

from __future__ import annotations

from typing import Literal

from ablab.contract.order import Resources
from ablab.launch.devices import Busy, DevicePool
from ablab.launch.slots import Slots, Threads
from ablab.plan.graph import Run
from ablab.study.schema import Compute

Pool = Literal["cpu", "gpu"]

#: Runs in the queue of a cluster at once, where the study says nothing.
QUEUE = 64


class Places:
    """The places of a launch.

    Args:
        threads: threads of a run.
        slots: cores of this machine.
        compute: the study's wishes.
        pool: GPUs of this machine; None runs everything on the CPU.
        queue: runs in a cluster's queue at once; None starts workers on this machine.
        cluster_gpus: GPUs the cluster gives to a process of a run that wants an accelerator.
        address_space: limit of a worker's address space in bytes.
    """

    def __init__(
        self,
        *,
        threads: Threads,
        slots: Slots,
        compute: Compute,
        pool: DevicePool | None = None,
        queue: int | None = None,
        cluster_gpus: int = 0,
        address_space: int | None = None,
    ) -> None:
        self.threads = threads
        self.slots = slots
        self.pool = pool
        self._compute = compute
        self._queue = queue
        self._cluster_gpus = cluster_gpus
        self._address_space = address_space
        self._queued: set[str] = set()

    @property
    def on_gpu(self) -> bool:
        """Whether runs that want an accelerator get one."""
        return self.pool is not None or self._cluster_gpus > 0

    def pool_of(self, run: Run) -> Pool:
        """Return where a run belongs: a GPU when it wants one and there are any."""
        return "gpu" if self.on_gpu and run.stage.spec.accelerator else "cpu"

    def wanted(self, run: Run) -> Resources:
        """Return what a first attempt at a run takes. Devices are placeholders until a place is taken."""
        on_gpu = self.pool_of(run) == "gpu"
        processes = self._compute.processes if run.stage.spec.makes_checkpoints else 1
        return Resources(
            devices=tuple(range(processes)) if on_gpu else (),
            threads=self.threads.of(run, on_gpu=on_gpu),
            world_size=processes,
            address_space=self._address_space,
        )

    def take(self, name: str, resources: Resources) -> Resources | Busy:
        """Take a place; return the resources with the devices that were leased, or why there is no place."""
        if self._queue is not None:
            if len(self._queued) >= self._queue:
                return Busy()
            self._queued.add(name)
            return resources
        if not self.slots.fits(resources):
            return Busy()
        if resources.devices and self.pool is not None:
            devices = self.pool.take(name, resources.world_size)
            if isinstance(devices, Busy):
                return devices
            resources = resources.model_copy(update={"devices": devices})
        self.slots.take(name, resources)
        return resources

    def room(self, resources: Resources) -> bool:
        """Whether a place might be free; cheap, and no promise."""
        if self._queue is not None:
            return len(self._queued) < self._queue
        return self.slots.fits(resources)

    def occupy(self, name: str, resources: Resources) -> None:
        """Account a run that is going on already on this machine; its GPU it holds itself."""
        if self._queue is not None:
            self._queued.add(name)
        else:
            self.slots.take(name, resources)

    def began(self, name: str, pid: int) -> None:
        """Take note of the worker's process."""
        if self.pool is not None:
            self.pool.hand_over(name, pid)

    def give(self, name: str) -> None:
        """Return the place of a run."""
        self._queued.discard(name)
        self.slots.give(name)
        if self.pool is not None:
            self.pool.give(name)
