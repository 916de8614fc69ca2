"""Claims: who works on a run. A file that exactly one process holds, and that a dead process loses by itself.

A claim is created exclusively and complete (written under another name, then linked), and names host, boot, process
and the process's start. On the same machine the process table says whether the holder lives; elsewhere its
heartbeat (the file's modification time) does. A dead claim is replaced while its own inode is locked and still
bears the name, so that of two stealers one wins.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ablab.contract.failure import AblabError, FailureKind
from ablab.store import processes
from ablab.store.files import check_format, naming_full_disk, temporary_name, write_all
from ablab.store.lines import locked

#: Seconds without a heartbeat after which a holder on another machine counts as dead.
STALE = 60.0
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a claim. `heartbeat` is the Unix time of its last sign of life; `pid` 0 means unknown."""

    host: str = ""
    boot: str = ""
    namespace: str = ""
    pid: int = 0
    start: str = ""
    token: str = ""
    time: float = 0.0
    heartbeat: float = 0.0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "an unknown process"


class Claimed(AblabError):
    """Another living process holds the claim; `holder` says which."""

    kind: FailureKind = "config"

    def __init__(self, path: str | os.PathLike[str], holder: Holder) -> None:
        super().__init__(f"{path}: held by {holder}; wait for it or stop it", holder=asdict(holder))
        self.holder = holder


class ClaimLost(AblabError):
    """Our claim is no longer ours: we were taken for dead, and nothing may be published."""

    kind: FailureKind = "lost"


class Claim:
    """A claim that this process holds, with its heartbeat. A forked child holds nothing."""

    def __init__(self, path: Path, holder: Holder, *, beat: float) -> None:
        self.path = path
        self.holder = holder
        self._beat = beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name=f"claim {path.parent.name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise ClaimLost unless the file still names us; called before anything is published."""
        if self.holder.pid != os.getpid():
            raise ClaimLost(f"{self.path}: the claim belongs to process {self.holder.pid}, not to its child")
        found = read_holder(self.path)
        if found is None or found.token != self.holder.token:
            now = "nobody" if found is None else str(found)
            raise ClaimLost(f"{self.path}: the claim of {self.holder} was lost, it is held by {now}; nothing was kept")

    def release(self) -> None:
        """Give the claim up; without effect when it is not ours any more, in a forked child, or a second time."""
        if self.holder.pid != os.getpid():
            return
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with contextlib.suppress(FileNotFoundError), _locked_holder(self.path) as found:
            if found is not None and found.token == self.holder.token:
                self.path.unlink()

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._beat):
            # A stolen claim bears another's heartbeat, and a passing fault of the file system is no reason to end.
            with contextlib.suppress(OSError):
                found = read_holder(self.path)
                if found is None or found.token != self.holder.token:
                    return
                os.utime(self.path)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def acquire(path: str | os.PathLike[str], *, beat: float = 5.0) -> Claim:
    """Take the claim at `path` for this process, stealing it from a dead holder.

    Args:
        path: the claim file; its folder is created.
        beat: seconds between heartbeats.

    Raises:
        Claimed: a living process holds it.
        DiskFullError: no space is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = _ourselves()
    temporary = temporary_name(path)
    with naming_full_disk(path):
        try:
            _write_new(temporary, holder)
            # The file system's own clock, against which heartbeats of other machines are read.
            now = temporary.stat().st_mtime
            while not (_create(temporary, path, holder) or _steal(temporary, path, now)):
                continue
        finally:
            temporary.unlink(missing_ok=True)
    return Claim(path, holder, beat=beat)


def read_holder(path: str | os.PathLike[str]) -> Holder | None:
    """Return who holds the claim at `path`; None when nobody does. A claim that cannot be read has pid 0."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _parse(handle)
    finally:
        os.close(handle)


def is_alive(holder: Holder, *, now: float | None = None) -> bool:
    """Whether the holder still works: by the process table on this machine, else by its heartbeat.

    Args:
        holder: as read by `read_holder`.
        now: Unix time the heartbeat is compared to; None is this machine's clock.
    """
    fresh = (time.time() if now is None else now) - holder.heartbeat < STALE
    if holder.pid == 0 or holder.host != processes.host():
        return fresh
    if holder.boot != processes.boot_id():
        # Rebooted since, unless another machine bears our name: then it has beaten after our boot.
        return fresh and holder.heartbeat > processes.boot_time()
    if holder.namespace != processes.pid_namespace():
        return fresh
    return processes.process_start(holder.pid) == holder.start


def _ourselves() -> Holder:
    pid = os.getpid()
    return Holder(
        host=processes.host(),
        boot=processes.boot_id(),
        namespace=processes.pid_namespace(),
        pid=pid,
        start=processes.process_start(pid) or "",
        token=secrets.token_hex(8),
        time=time.time(),
    )


def _write_new(path: Path, holder: Holder) -> None:
    content = asdict(holder)
    del content["heartbeat"]
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        write_all(handle, json.dumps({"format": 1, **content}).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def _create(temporary: Path, path: Path, holder: Holder) -> bool:
    """Make the claim if there is none."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here: the name is still exclusive, and a reader takes unfinished content for a living holder.
        try:
            _write_new(path, holder)
        except FileExistsError:
            return False
    return True


def _steal(temporary: Path, path: Path, now: float) -> bool:
    """Replace the claim if its holder is dead; False when it vanished meanwhile. Raises Claimed."""
    try:
        with _locked_holder(path) as found:
            if found is None:
                return False
            if is_alive(found, now=now):
                raise Claimed(path, found)
            # Nobody else removes this inode while we hold its lock, so the name is still the dead one's.
            temporary.replace(path)
            return True
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _locked_holder(path: Path) -> Iterator[Holder | None]:
    """Yield the holder with its file locked; None when the name went to another file while we waited."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        with locked(handle):
            ours, named = os.fstat(handle), path.stat()
            yield _parse(handle) if (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino) else None
    finally:
        os.close(handle)


def _parse(handle: int) -> Holder:
    heartbeat = os.fstat(handle).st_mtime
    try:
        content = json.loads(os.pread(handle, 65536, 0))
        check_format(content, "claim")
        del content["format"]
        return Holder(**content, heartbeat=heartbeat)
    except (ValueError, TypeError, AblabError):
        return Holder(heartbeat=heartbeat)
