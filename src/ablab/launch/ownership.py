"""Which launcher looks after a run: of several launches of one study, one at a time starts, resumes and gives up a run.

One file of the store carries a lock of one byte per run, at an offset drawn from the run's key: equal work is one run,
whatever two studies call its stage. The kernel drops the
locks of a launcher that dies, by whatever means, so nothing here can be left behind. Who *works* on a run is another
matter: that is the worker's claim (`ablab.store.claims`), which outlives the launcher.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
from pathlib import Path

#: Locks that belong to the open file, not to the process (Linux); elsewhere those of the process.
_SET = getattr(fcntl, "F_OFD_SETLK", fcntl.F_SETLK)
_TAKEN = {errno.EAGAIN, errno.EACCES}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class Ownership:
    """The runs of a store that this launcher looks after.

    Args:
        root: the store's folder; the lock file is made in it.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        Path(root).mkdir(parents=True, exist_ok=True)
        self._handle = os.open(Path(root) / ".launchers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._keys: set[str] = set()

    def take(self, name: str) -> bool:
        """Look after a run from now on; False when another living launcher does."""
        key = _key(name)
        if key in self._keys:
            return True
        try:
            self._set(key, fcntl.F_WRLCK)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            # Without locks, the workers' claims alone keep a run from being done twice.
            if error.errno not in _NO_LOCKS:
                raise
        self._keys.add(key)
        return True

    def give(self, name: str) -> None:
        """Leave a run to other launchers; without effect when it is not ours."""
        key = _key(name)
        if key in self._keys:
            self._keys.remove(key)
            with contextlib.suppress(OSError):
                self._set(key, fcntl.F_UNLCK)

    def close(self) -> None:
        """Leave every run to other launchers."""
        self._keys.clear()
        os.close(self._handle)

    def _set(self, key: str, kind: int) -> None:
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        offset = int.from_bytes(digest, "big") >> 2
        # struct flock: type, whence, start, length, pid; the pid must be 0 for a lock of the open file.
        fcntl.fcntl(self._handle, _SET, struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0))


def _key(name: str) -> str:
    """Return the key in the name of a run folder."""
    return name.rpartition("-")[2]
