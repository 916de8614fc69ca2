"""Workers on a Ray cluster: one actor a run, which starts the worker beside it and hands signals on.

Uses Ray's core alone. GPUs are the cluster's to assign.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablab.contract.failure import ConfigError
from ablab.contract.order import Resources
from ablab.launch.executors.base import Exit, Handle, Program, log_of
from ablab.launch.executors.remote import Remote


class RayExecutor:
    """Starts workers on a Ray cluster.

    Args:
        program: what to start.
        options: given to `ray.init`; RAY_ADDRESS names a cluster, otherwise one is started on this machine.

    Raises:
        ConfigError: Ray is not installed, or no cluster can be reached.
    """

    local = False

    def __init__(self, *, program: Program | None = None, options: Mapping[str, Any] | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("compute.executor is ray, but Ray is not installed: pip install ablab[ray]") from None
        self._ray: Any = ray
        self._program = program or Program()
        self._work: dict[Handle, tuple[Any, Any]] = {}
        self._asked: set[Handle] = set()
        self._mine = not ray.is_initialized()
        if self._mine:
            try:
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **(options or {}))
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(f"compute.executor is ray, but no cluster can be reached: {error}") from None

    def start(self, order: Path, *, resources: Resources, env: Mapping[str, str]) -> Handle:
        """Ask the cluster for a place; the worker begins as soon as there is one."""
        variables = {"OMP_NUM_THREADS": str(resources.threads), "OMP_WAIT_POLICY": "passive", **env}
        command = self._program.command(order, processes=resources.world_size)
        maker = self._ray.remote(
            num_cpus=resources.threads * resources.world_size,
            num_gpus=len(resources.devices),
            # One call runs the worker, another one may bring a signal meanwhile.
            max_concurrency=2,
            max_restarts=0,
            # On a cluster of its own standing, workers outlive their launcher.
            lifetime="detached",
        )(Remote)
        actor = maker.remote(command, variables, str(log_of(order)))
        handle = Handle(order=order)
        self._work[handle] = (actor, actor.run.remote())
        return handle

    def poll(self, handle: Handle) -> Exit | None:
        """Return how the worker ended; a node that is gone makes it lost."""
        if handle.exit is not None:
            return handle.exit
        actor, result = self._work[handle]
        ready, _ = self._ray.wait([result], timeout=0)
        if ready:
            handle.exit = self._exit(handle, result)
            del self._work[handle]
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
        return handle.exit

    def signal(self, handle: Handle, number: int) -> None:
        """Hand a signal on; a worker that has no place yet is taken out of the queue."""
        if self.poll(handle) is not None:
            return
        actor, _ = self._work[handle]
        self._asked.add(handle)
        told = actor.signal.remote(number)
        ready, _ = self._ray.wait([told], timeout=5.0)
        if not ready:
            self._ray.kill(actor)

    def waitables(self) -> Sequence[int]:
        """Return nothing: the cluster has to be asked."""
        return ()

    def close(self) -> None:
        """Leave the cluster; one of our own ends with us."""
        self._work.clear()
        if self._mine:
            self._ray.shutdown()

    def _exit(self, handle: Handle, result: Any) -> Exit:
        try:
            return Exit(code=int(self._ray.get(result)))
        except self._ray.exceptions.RayError as error:
            if handle in self._asked:
                return Exit(code=-signal.SIGKILL)
            return Exit(code=None, kind="lost", message=f"Ray lost the worker: {str(error).splitlines()[0]}")
