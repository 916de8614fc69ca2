"""What can be wrong with a file of the store: corrupt, of another format, or no room to write it.

Each names the file (and the line) and says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterator
from typing import Any

from ablab.contract.failure import AblabError, DiskFullError, FailureKind

_FULL = {errno.ENOSPC, errno.EDQUOT}


class CorruptFile(AblabError):
    """A file of the store that cannot be what it was written as; `detail` names `file` and, for lines, `row`."""

    kind: FailureKind = "data"


class UnreadableFormat(AblabError):
    """A file whose format number this version does not read."""

    kind: FailureKind = "config"


@contextlib.contextmanager
def naming_full_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn "no space left" (and "quota exceeded") of the enclosed work into a DiskFullError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(
            f"no space left on the device that holds {path}: free some (`ablab gc` says what it would remove)",
            file=str(path),
        ) from error


def check_format(data: Any, path: str | os.PathLike[str], *, reads: Collection[int] = (1,)) -> int:
    """Return the format number of a file's content.

    Raises:
        CorruptFile: the content is no JSON object with a format number.
        UnreadableFormat: the number is not among `reads`; the message says which version wrote it.
    """
    found = data.get("format") if isinstance(data, dict) else None
    if not isinstance(found, int) or isinstance(found, bool):
        raise CorruptFile(f"{path}: expected a JSON object with a format number, found none", file=str(path))
    if found in reads:
        return found
    known = ", ".join(map(str, sorted(reads)))
    age, remedy = ("a newer", "upgrade ablab") if found > max(reads) else ("an older", "read it with that version")
    raise UnreadableFormat(
        f"{path}: format {found} was written by {age} version of ablab; this one reads format {known}: {remedy}",
        file=str(path),
        found=found,
    )
