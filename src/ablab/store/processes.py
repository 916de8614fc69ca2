"""Which process is meant by a process id: host, boot, pid name space and start time make it unmistakable.

Claims use it to tell a living holder from a dead one; nothing here starts or ends a process. How many processors a
process may use stands here too.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path


def host() -> str:
    """Return this machine's name."""
    return platform.node()


def cores() -> int:
    """Return the processors this process may use: its affinity, and the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):
        return allowed


def boot_id() -> str:
    """Return what changes with every boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"boot-{boot_time():.0f}"


def boot_time() -> float:
    """Return the Unix time at which this machine started."""
    import psutil

    return psutil.boot_time()


def pid_namespace() -> str:
    """Return the name space our process ids belong to; containers of one machine differ in it."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """Return when a process of this machine started, as an opaque text; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self").is_dir() else _portable_start(pid)
    # The command in parentheses may hold spaces and parentheses itself: fields count from the last one.
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X", b"x") else fields[19].decode()


def _portable_start(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.3f}"
    except psutil.Error:
        return None
