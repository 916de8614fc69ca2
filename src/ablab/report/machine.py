"""The machine as it is at this moment: processors, memory, temperature, GPUs, disk. What cannot be told is left out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU: use in percent, memory in bytes, temperature in degrees Celsius, power in watts; None where unknown."""

    index: int
    name: str
    used: int
    memory: int
    busy: int | None = None
    temperature: int | None = None
    power: float | None = None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine.

    Args:
        busy: share of all processors in use since the last look (0 to 1).
        load: mean number of runnable processes over a minute; None where the system does not say.
        temperature: the hottest sensor that is not a GPU's, and its name.
        used, memory: bytes of main memory.
        free, disk: bytes of the file system that holds the store.
    """

    cores: int
    busy: float
    load: float | None
    used: int
    memory: int
    free: int
    disk: int
    temperature: tuple[str, float] | None = None
    gpus: tuple[Gpu, ...] = ()


class Sensors:
    """Reads the machine; libraries are opened on the first look.

    Args:
        store: the folder whose disk is meant; a folder above it where it is not there yet.
        nvml: what has pynvml's functions; None imports pynvml.
    """

    def __init__(self, store: str | os.PathLike[str], *, nvml: Any = None) -> None:
        self._store = Path(store)
        self._nvml: Any = nvml
        self._opened = False

    def look(self) -> Machine:
        """Return the machine as it is."""
        import shutil

        import psutil

        memory = psutil.virtual_memory()
        place = next(path for path in (self._store, *self._store.parents) if path.exists())
        disk = shutil.disk_usage(place)
        return Machine(
            cores=psutil.cpu_count() or 1,
            busy=psutil.cpu_percent(interval=None) / 100,
            load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            used=memory.total - memory.available,
            memory=memory.total,
            free=disk.free,
            disk=disk.total,
            temperature=_hottest(getattr(psutil, "sensors_temperatures", None)),
            gpus=tuple(self._gpus()),
        )

    def _gpus(self) -> list[Gpu]:
        library = self._open()
        if library is None:
            return []
        found = []
        for index in range(_told(library.nvmlDeviceGetCount) or 0):
            with contextlib.suppress(library.NVMLError):
                found.append(_gpu(library, index))
        return found

    def _open(self) -> Any:
        if not self._opened:
            self._opened = True
            if self._nvml is None:
                with contextlib.suppress(ImportError):
                    import pynvml

                    self._nvml = pynvml
            if self._nvml is not None:
                try:
                    self._nvml.nvmlInit()
                except self._nvml.NVMLError:
                    self._nvml = None
        return self._nvml


def _gpu(library: Any, index: int) -> Gpu:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    memory = library.nvmlDeviceGetMemoryInfo(handle)
    name = library.nvmlDeviceGetName(handle)
    busy = _told(library.nvmlDeviceGetUtilizationRates, handle)
    power = _told(library.nvmlDeviceGetPowerUsage, handle)
    return Gpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else name,
        used=int(memory.used),
        memory=int(memory.total),
        busy=None if busy is None else int(busy.gpu),
        temperature=_told(library.nvmlDeviceGetTemperature, handle, 0),
        power=None if power is None else power / 1000,
    )


def _told(ask: Callable[..., Any], *arguments: Any) -> Any:
    """Return an answer, or None: not every GPU, and no part of one, tells everything."""
    try:
        return ask(*arguments)
    except Exception:
        return None


def _hottest(read: Callable[[], Any] | None) -> tuple[str, float] | None:
    if read is None:
        return None
    try:
        chips = read()
    except (OSError, ValueError):
        return None
    known = [(sensor.current, chip) for chip, sensors in chips.items() for sensor in sensors if sensor.current]
    if not known:
        return None
    degrees, chip = max(known)
    return chip, float(degrees)
