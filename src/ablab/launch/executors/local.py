"""Workers on this machine: forked from a warm template, or started cold, or several processes under torchrun.

A template is one Python process that has imported the compute plane and touched no device; it reads paths of orders
on standard input, forks a child for each, and prints a JSON line when a child began and when it ended. When the
launcher dies, its template sees the end of its input and leaves; the workers go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from ablab.contract.order import Resources
from ablab.launch.executors.base import Exit, Handle, Program, log_of
from ablab.launch.processes import Watch, children

#: A thread team that waits by spinning takes the cores from the others; read by OpenMP before the first import.
_QUIET_TEAMS = {"OMP_WAIT_POLICY": "passive"}


class LocalExecutor:
    """Starts workers on this machine.

    Args:
        program: what to start.
        log: file that takes what templates print; None drops it.
    """

    local = True

    def __init__(self, *, program: Program | None = None, log: Path | None = None) -> None:
        self._program = program or Program()
        self._log = log
        self._templates: dict[frozenset[tuple[str, str]], _Template] = {}
        self._unusable: set[frozenset[tuple[str, str]]] = set()
        self._cold: dict[Handle, _Cold] = {}

    def start(self, order: Path, *, resources: Resources, env: Mapping[str, str]) -> Handle:
        """Start a worker, warm where one process is enough and the template is sound."""
        handle = Handle(order=order)
        if resources.world_size > 1 or not self._start_warm(handle, resources, env):
            self._start_cold(handle, resources, env)
        return handle

    def poll(self, handle: Handle) -> Exit | None:
        """Return how the worker ended; None while it goes on."""
        if handle.exit is None and handle in self._cold:
            self._poll_cold(handle)
        elif handle.exit is None:
            self._poll_templates()
        return handle.exit

    def signal(self, handle: Handle, number: int) -> None:
        """Send a signal to the worker; to every rank of several processes, since torchrun would give them 30 s."""
        if self.poll(handle) is not None:
            return
        if handle in self._cold:
            self._cold[handle].signal(number)
        else:
            for template in self._templates.values():
                template.signal(handle, number)
            self._poll_templates()

    def waitables(self) -> Sequence[int]:
        """Return what becomes readable when a worker or a template ended."""
        found = [number for template in self._templates.values() for number in template.waitables()]
        found += [c.watch.descriptor for c in self._cold.values() if c.watch.descriptor is not None]
        return found

    def close(self) -> None:
        """End the templates; workers go on."""
        for template in self._templates.values():
            template.close()
        for cold in self._cold.values():
            cold.watch.close()
        self._templates.clear()
        self._cold.clear()

    def _start_warm(self, handle: Handle, resources: Resources, env: Mapping[str, str]) -> bool:
        key = frozenset(env.items())
        if self._program.template is None or key in self._unusable:
            return False
        if key not in self._templates:
            command = [self._program.python, *self._program.template]
            self._templates[key] = _Template(command, env=_environment(env, resources, warm=True), log=self._log)
        self._templates[key].send(handle, resources, env)
        return True

    def _start_cold(self, handle: Handle, resources: Resources, env: Mapping[str, str]) -> None:
        command = self._program.command(handle.order, processes=resources.world_size)
        self._cold[handle] = cold = _Cold(
            command, env=_environment(env, resources), log=log_of(handle.order), ranks=resources.world_size
        )
        handle.pid = cold.process.pid

    def _poll_cold(self, handle: Handle) -> None:
        cold = self._cold[handle]
        code = cold.process.poll()
        if code is not None:
            handle.exit = Exit(code=code)
            cold.watch.close()
            del self._cold[handle]

    def _poll_templates(self) -> None:
        for key, template in list(self._templates.items()):
            template.absorb()
            if template.process.poll() is None or template.orphans:
                continue
            del self._templates[key]
            if not template.useful:
                self._unusable.add(key)
            for handle, resources, env in template.unborn():
                self._start_cold(handle, resources, env)
            template.close()


class _Cold:
    """A worker, or torchrun with its ranks, started as a process of its own session."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], log: Path, ranks: int) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        self.watch = Watch(self.process.pid)
        self._ranks = ranks

    def signal(self, number: int) -> None:
        ranks = children(self.process.pid) if self._ranks > 1 and number != signal.SIGKILL else []
        if not ranks:
            self.watch.signal(number)
        for rank in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank, number)


class _Template:
    """One warm template and the workers forked from it."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], log: Path | None) -> None:
        errors: IO[bytes] | int = subprocess.DEVNULL if log is None else log.open("ab")
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=env,
                start_new_session=True,
                bufsize=0,
            )
        finally:
            if not isinstance(errors, int):
                errors.close()
        assert self.process.stdin is not None and self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self._stdout.fileno(), False)
        self._watch = Watch(self.process.pid)
        self._partial = b""
        self._unborn: dict[str, tuple[Handle, Resources, Mapping[str, str]]] = {}
        self._early: dict[Handle, list[int]] = {}
        self._alive: dict[int, tuple[Handle, Watch]] = {}
        self.useful = False

    def send(self, handle: Handle, resources: Resources, env: Mapping[str, str]) -> None:
        """Ask for a worker on an order; nothing but the order's path goes down."""
        self._unborn[str(handle.order)] = (handle, resources, env)
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(f"{handle.order}\n".encode())

    def signal(self, handle: Handle, number: int) -> None:
        """Send a signal to a worker of this template, kept until the worker is there."""
        for mine, watch in self._alive.values():
            if mine is handle:
                watch.signal(number)
        if any(mine is handle for mine, _, _ in self._unborn.values()):
            self._early.setdefault(handle, []).append(number)
            if number == signal.SIGKILL:
                self._give_up(handle)

    def waitables(self) -> list[int]:
        """Return the template's output, itself, and, once it is gone, its workers."""
        watches = [watch for _, watch in self._alive.values()] if self.process.returncode is not None else [self._watch]
        output = [] if self.process.returncode is not None else [self._stdout.fileno()]
        return output + [watch.descriptor for watch in watches if watch.descriptor is not None]

    @property
    def orphans(self) -> bool:
        """Whether workers of a template that is gone still run."""
        return bool(self._alive)

    def unborn(self) -> list[tuple[Handle, Resources, Mapping[str, str]]]:
        """Return the orders this template did not get to."""
        return list(self._unborn.values())

    def absorb(self) -> None:
        """Read what the template said; when it is gone, look after its workers ourselves."""
        gone = self.process.poll() is not None
        for line in self._lines():
            self._hear(line)
        if gone:
            for pid, (handle, watch) in list(self._alive.items()):
                if watch.ended:
                    self._finish(pid, handle, watch, code=None)

    def close(self) -> None:
        """Close the template's input, which ends it; wait for it unless workers keep it."""
        for _, watch in self._alive.values():
            watch.close()
        self._stdin.close()
        if self.process.returncode is None and not self._alive and not self._unborn:
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._watch.signal(signal.SIGKILL)
                self.process.wait()
        self._stdout.close()
        self._watch.close()

    def _give_up(self, handle: Handle) -> None:
        """End the template, which takes too long to get to an order; workers it has forked go on."""
        self._unborn.pop(str(handle.order))
        handle.exit = Exit(code=-signal.SIGKILL)
        self.process.kill()

    def _lines(self) -> list[bytes]:
        parts = [self._partial]
        while part := self._stdout.read(65536):
            parts.append(part)
        *lines, self._partial = b"".join(parts).split(b"\n")
        return lines

    def _hear(self, line: bytes) -> None:
        try:
            said = json.loads(line)
            pid = said["pid"]
        except (ValueError, KeyError, TypeError):
            return  # A library that prints on import is no reason to fail.
        if "order" in said and said["order"] in self._unborn:
            handle, _, _ = self._unborn.pop(said["order"])
            handle.pid = pid
            self._alive[pid] = (handle, Watch(pid))
            self.useful = True
            for number in self._early.pop(handle, []):
                self._alive[pid][1].signal(number)
        elif "exit" in said and pid in self._alive:
            self._finish(pid, *self._alive[pid], code=said["exit"])

    def _finish(self, pid: int, handle: Handle, watch: Watch, *, code: int | None) -> None:
        handle.exit = Exit(code=code)
        watch.close()
        del self._alive[pid]


def _environment(env: Mapping[str, str], resources: Resources, *, warm: bool = False) -> dict[str, str]:
    """Return the whole environment of a worker or template.

    GPUs are NVML's indices, in the order of the PCI bus. Workers of a template take theirs from their orders, so
    what we ourselves may see must not be handed down.
    """
    found = {**os.environ, **_QUIET_TEAMS, "OMP_NUM_THREADS": str(resources.threads), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if warm:
        found.pop("CUDA_VISIBLE_DEVICES", None)
    elif resources.devices:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, resources.devices))
    return {**found, **env}
