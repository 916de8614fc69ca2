"""Memory and use of this process and its machine, as cheap readings taken now and then."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import psutil
import torch


def rss() -> int:
    """Return the resident bytes of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_rss() -> int:
    """Return the largest resident bytes of this process so far.

    The kernel's own mark of this address space is read, since `getrusage` may hold that of the process before exec.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def gpu_memory() -> int:
    """Return the bytes torch holds on our GPU now; 0 without one in use."""
    return int(torch.cuda.memory_reserved()) if torch.cuda.is_initialized() else 0


def peak_gpu_memory() -> int:
    """Return the largest bytes torch held on our GPU so far."""
    return int(torch.cuda.max_memory_reserved()) if torch.cuda.is_initialized() else 0


def gpu_utilisation() -> float | None:
    """Return the share of the last moments in which our GPU computed; None where that cannot be told."""
    if not torch.cuda.is_initialized():
        return None
    try:
        return torch.cuda.utilization() / 100.0
    except Exception:
        # NVML may be absent or closed to us; a missing gauge never stops a run.
        return None


class Sharing:
    """How much of the machine's processors other processes used since this was made, in cores."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def foreign_cores(self) -> float:
        """Return the mean number of cores that others kept busy."""
        seconds = time.monotonic() - self._began
        if seconds <= 0:
            return 0.0
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return max(0.0, others / seconds)


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _own_seconds() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
