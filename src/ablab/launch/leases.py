"""GPU leases of this machine, across studies and users: who holds which GPU, and with how many may it be shared.

A folder that everybody may write holds one file a GPU; it is changed in place under its lock (fcntl), since in a
sticky folder nobody may replace another user's file. A lease belongs to a process and ends with it: first the
launcher's, then its worker's, so that a worker that outlives its launcher keeps its GPU.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablab.contract.failure import ConfigError
from ablab.store import processes
from ablab.store.claims import Holder, is_alive
from ablab.store.files import locked, write_all

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Lease:
    """One share of a GPU.

    Args:
        gpu: identity of the GPU (its UUID).
        token: tells this lease from others.
        host: machine, with `boot` and `namespace` what makes `pid` and `start` one process.
        user: login name of the holder.
        run: what it is for.
        share: runs the holder lets share the GPU, itself included.
        time: Unix time of the lease, or of its last renewal.
    """

    gpu: str
    token: str
    host: str
    boot: str
    namespace: str
    pid: int
    start: str
    user: str
    run: str
    share: int
    time: float

    @property
    def alive(self) -> bool:
        """Whether the process that holds it still runs."""
        names = ("host", "boot", "namespace", "pid", "start", "token")
        return is_alive(Holder(**{name: getattr(self, name) for name in names}, heartbeat=self.time))

    def __str__(self) -> str:
        return f"{self.user} (process {self.pid}, {self.run})"


def lease_folder() -> Path:
    """Return the machine's folder of leases: $ABLAB_LEASES, else /var/tmp/ablab-leases."""
    return Path(os.environ.get("ABLAB_LEASES") or "/var/tmp/ablab-leases")


class Leases:
    """The leases of this machine.

    Args:
        folder: where they are; None is `lease_folder()`. Made on first use, writable by everybody.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or lease_folder()

    def take(self, gpu: str, *, run: str, share: int = 1) -> Lease | None:
        """Lease a share of a GPU for this process; None when it is taken.

        Args:
            gpu: identity of the GPU.
            run: what it is for.
            share: runs that may share the GPU; the smallest wish of all holders counts.
        """
        with self._opened(gpu) as file:
            held = file.living()
            if len(held) >= min([share, *(lease.share for lease in held)]):
                return None
            lease = _of_process(gpu, os.getpid(), run=run, share=share)
            if lease is None:
                return None
            file.write([*held, lease])
            return lease

    def holders(self, gpu: str) -> list[Lease]:
        """Return the living leases of a GPU."""
        with self._opened(gpu) as file:
            return file.living()

    def move(self, lease: Lease, pid: int) -> Lease:
        """Hand a lease to a process of ours, with which it will end; unchanged when that is gone already."""
        moved = _of_process(lease.gpu, pid, run=lease.run, share=lease.share)
        if moved is None:
            return lease
        with self._opened(lease.gpu) as file:
            file.write([*(held for held in file.living() if held.token != lease.token), moved])
        return moved

    def renew(self, lease: Lease) -> None:
        """Say that a lease is still wanted; processes that cannot see its holder go by this alone."""
        with self._opened(lease.gpu) as file:
            now = time.time()
            file.write(
                [
                    Lease(**{**asdict(held), "time": now}) if held.token == lease.token else held
                    for held in file.living(also=lease.token)
                ]
            )

    def give(self, lease: Lease) -> None:
        """End a lease; without effect when it has ended."""
        with self._opened(lease.gpu) as file:
            file.write([held for held in file.living() if held.token != lease.token])

    @contextlib.contextmanager
    def _opened(self, gpu: str) -> Iterator[_LeaseFile]:
        self._make_folder()
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', gpu)}.json"
        try:
            handle = _open_shared(path)
        except PermissionError:
            raise ConfigError(
                f"{path}: not writable for {getpass.getuser()}, so GPUs cannot be leased; remove the file, or set "
                "ABLAB_LEASES to a folder that all users of this machine may write"
            ) from None
        try:
            with locked(handle):
                yield _LeaseFile(handle, gpu)
        finally:
            os.close(handle)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True)
        except FileExistsError:
            return
        # Everybody may add a file, nobody may remove another's.
        self.folder.chmod(0o1777)


def _open_shared(path: Path) -> int:
    """Open a file that every user may change. Created apart: kernels forbid O_CREAT on others' files in /tmp."""
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                os.fchmod(
                    handle, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
                )
                return handle


class _LeaseFile:
    """The open, locked file of one GPU: one line of JSON. What follows the line is a torn older content."""

    def __init__(self, handle: int, gpu: str) -> None:
        self._handle = handle
        self._gpu = gpu

    def living(self, *, also: str = "") -> list[Lease]:
        """Return the leases whose processes run, and the one with the token `also`."""
        return [lease for lease in self._read() if lease.alive or lease.token == also]

    def write(self, leases: list[Lease]) -> None:
        content = {"format": FORMAT, "leases": [asdict(lease) for lease in leases]}
        data = json.dumps(content).encode() + b"\n"
        os.lseek(self._handle, 0, os.SEEK_SET)
        write_all(self._handle, data)
        os.ftruncate(self._handle, len(data))

    def _read(self) -> list[Lease]:
        line = os.pread(self._handle, 1 << 20, 0).partition(b"\n")[0]
        try:
            content: Any = json.loads(line)
            return [Lease(**{**fields, "gpu": self._gpu}) for fields in content["leases"]]
        except (ValueError, TypeError, KeyError):
            return []


def _of_process(gpu: str, pid: int, *, run: str, share: int) -> Lease | None:
    start = processes.process_start(pid)
    if start is None:
        return None
    return Lease(
        gpu=gpu,
        token=secrets.token_hex(8),
        host=processes.host(),
        boot=processes.boot_id(),
        namespace=processes.pid_namespace(),
        pid=pid,
        start=start,
        user=getpass.getuser(),
        run=run,
        share=share,
        time=time.time(),
    )
