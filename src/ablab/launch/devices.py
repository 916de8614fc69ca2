"""The GPUs of this machine, who uses them, and taking one for a run.

NVML is asked lazily and only here. A GPU with memory of processes that hold no lease is somebody else's: it is waited
for, and the wait says whose it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ablab.contract.failure import ConfigError
from ablab.launch.leases import Lease, Leases

#: Memory of one process that counts as use; a display server's crumbs do not.
_PROCESS_BYTES = 64 * 2**20
#: Memory that a driver may hold on an idle GPU.
_IDLE_BYTES = 2 * 2**30


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU: NVML's index (PCI bus order), its identity, name and memory in bytes."""

    index: int
    uuid: str
    name: str
    memory: int


@dataclass(frozen=True, kw_only=True)
class Occupant:
    """Somebody else's use of a GPU. `memory` in bytes; pid 0 when NVML shows memory but no process."""

    pid: int
    user: str = ""
    command: str = ""
    memory: int = 0

    def __str__(self) -> str:
        size = f"{self.memory / 2**30:.1f} GiB"
        if not self.pid:
            return f"processes that cannot be seen from here ({size})"
        return f"{self.user or 'an unknown user'} (process {self.pid}, {size}): {self.command or 'unknown command'}"


class Nvml:
    """NVML, opened on first use. Without a driver there are no GPUs.

    Args:
        library: module or object with pynvml's functions; None imports pynvml.
    """

    def __init__(self, library: Any = None) -> None:
        self._given = library
        self._library: Any = None
        self._tried = False

    def gpus(self) -> list[Gpu]:
        """Return the GPUs that this process may use, by index; CUDA_VISIBLE_DEVICES is respected."""
        library = self._open()
        if library is None:
            return []
        found = []
        for index in range(library.nvmlDeviceGetCount()):
            handle = library.nvmlDeviceGetHandleByIndex(index)
            found.append(
                Gpu(
                    index=index,
                    uuid=_text(library.nvmlDeviceGetUUID(handle)),
                    name=_text(library.nvmlDeviceGetName(handle)),
                    memory=int(library.nvmlDeviceGetMemoryInfo(handle).total),
                )
            )
        return _visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))

    def occupants(self, gpu: Gpu, leases: Iterable[Lease]) -> list[Occupant]:
        """Return who uses a GPU without a lease.

        Args:
            gpu: the GPU.
            leases: its living leases; memory of their processes and descendants is accounted for.
        """
        library = self._open()
        if library is None:
            return []
        handle = library.nvmlDeviceGetHandleByIndex(gpu.index)
        leased = [lease.pid for lease in leases]
        listed = [(p.pid, p.usedGpuMemory) for p in library.nvmlDeviceGetComputeRunningProcesses(handle)]
        foreign = [
            _occupant(pid, used or 0)
            for pid, used in listed
            if (used is None or used >= _PROCESS_BYTES) and not _accounted(pid, leased)
        ]
        if foreign or leased or listed:
            return foreign
        # In a container NVML may list nobody; the memory is taken all the same.
        used = int(library.nvmlDeviceGetMemoryInfo(handle).used)
        return [Occupant(pid=0, memory=used)] if used > _IDLE_BYTES else []

    def _open(self) -> Any:
        if self._tried:
            return self._library
        self._tried = True
        library = self._given or _pynvml()
        if library is None:
            return None
        try:
            library.nvmlInit()
        except library.NVMLError:
            return None
        self._library = library
        return library


def _pynvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def choose_gpus(found: list[Gpu], wanted: tuple[int, ...] | str | None) -> list[Gpu]:
    """Return the GPUs that `--devices` means.

    Raises:
        ConfigError: an index that there is not, or a word other than "cpu".
    """
    if wanted is None:
        return found
    if isinstance(wanted, str):
        if wanted == "cpu":
            return []
        raise ConfigError(f"--devices {wanted}: expected GPU indices such as 0,1, or cpu")
    known = {gpu.index: gpu for gpu in found}
    missing = [index for index in wanted if index not in known]
    if missing:
        there = ", ".join(map(str, known)) or "none"
        raise ConfigError(f"--devices {missing[0]}: no such GPU; there are: {there} (or give cpu)")
    return [known[index] for index in dict.fromkeys(wanted)]


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Why no GPU is free: by GPU, who else has it; empty where they are all at work for this launch."""

    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join(self.reasons)


class DevicePool:
    """GPUs of this machine that a launch may use, taken run by run.

    Args:
        gpus: the GPUs.
        leases: the machine's leases.
        nvml: who uses what.
        share: runs that may share one GPU.
        cooldown: seconds a GPU rests between runs.
    """

    def __init__(self, gpus: list[Gpu], *, leases: Leases, nvml: Nvml, share: int = 1, cooldown: float = 0.0) -> None:
        self.gpus = gpus
        self._leases = leases
        self._nvml = nvml
        self._share = share
        self._cooldown = cooldown
        self._held: dict[str, list[tuple[Gpu, Lease]]] = {}
        self._rested: dict[int, float] = {}
        self._renewed = time.monotonic()

    def take(self, run: str, count: int = 1) -> tuple[int, ...] | Busy:
        """Lease `count` GPUs for a run; Busy says why that is not possible now."""
        if count > len(self.gpus):
            raise ConfigError(
                f"compute.processes is {count}, but there are {len(self.gpus)} GPUs; lower it or give more --devices"
            )
        taken: list[tuple[Gpu, Lease]] = []
        reasons: list[str] = []
        for gpu in sorted(self.gpus, key=lambda gpu: sum(gpu in dict(held) for held in self._held.values())):
            lease = self._try(gpu, run, reasons)
            if lease is not None:
                taken.append((gpu, lease))
            if len(taken) == count:
                self._held[run] = taken
                return tuple(gpu.index for gpu, _ in taken)
        for _, lease in taken:
            self._leases.give(lease)
        return Busy(reasons=tuple(reasons))

    def hand_over(self, run: str, pid: int) -> None:
        """Let the leases of a run end with its worker, not with us."""
        self._held[run] = [(gpu, self._leases.move(lease, pid)) for gpu, lease in self._held.get(run, [])]

    def give(self, run: str) -> None:
        """Return the GPUs of a run."""
        for gpu, lease in self._held.pop(run, []):
            self._leases.give(lease)
            self._rested[gpu.index] = time.monotonic() + self._cooldown

    def renew(self, every: float = 20.0) -> None:
        """Renew all leases, at most every so many seconds."""
        if time.monotonic() - self._renewed < every:
            return
        self._renewed = time.monotonic()
        for held in self._held.values():
            for _, lease in held:
                self._leases.renew(lease)

    def _try(self, gpu: Gpu, run: str, reasons: list[str]) -> Lease | None:
        if time.monotonic() < self._rested.get(gpu.index, 0.0):
            reasons.append(f"GPU {gpu.index} is cooling down")
            return None
        lease = self._leases.take(gpu.uuid, run=run, share=self._share)
        if lease is None:
            ours = {mine.token for held in self._held.values() for _, mine in held}
            others = [held for held in self._leases.holders(gpu.uuid) if held.token not in ours]
            if others:
                reasons.append(f"GPU {gpu.index} is leased to {', '.join(map(str, others))}")
            return None
        occupants = self._nvml.occupants(gpu, [held for held in self._leases.holders(gpu.uuid) if held != lease])
        if occupants:
            self._leases.give(lease)
            reasons.append(f"GPU {gpu.index} is used by {', '.join(map(str, occupants))}")
            return None
        return lease


def _accounted(pid: int, leased: list[int]) -> bool:
    """Whether a process belongs to a lease: its holder or a descendant; one that cannot be seen is given the doubt."""
    if not leased:
        return False
    if pid in leased:
        return True
    import psutil

    try:
        return any(parent.pid in leased for parent in psutil.Process(pid).parents())
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _occupant(pid: int, memory: int) -> Occupant:
    import psutil

    try:
        process = psutil.Process(pid)
        return Occupant(pid=pid, user=process.username(), command=" ".join(process.cmdline())[:200], memory=memory)
    except psutil.Error:
        return Occupant(pid=pid, memory=memory)


def _visible(gpus: list[Gpu], wanted: str | None) -> list[Gpu]:
    """Return the GPUs of a CUDA_VISIBLE_DEVICES value: indices or beginnings of UUIDs, up to the first unknown one."""
    if wanted is None:
        return gpus
    chosen: list[Gpu] = []
    for item in (part.strip() for part in wanted.split(",")):
        found = [gpu for gpu in gpus if str(gpu.index) == item or (len(item) > 3 and gpu.uuid.startswith(item))]
        if len(found) != 1:
            break
        chosen.append(found[0])
    return chosen


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
