"""Files that survive any kill: whole or not there, lines whole or ignored, errors that name file and line.

Every file of the store goes through here. What a file means (its keys, its place) belongs to the other modules.

A file of lines begins with a header, `{"format": 1}`, which its first writer adds and readers check and leave out.
JSON is Python's: a float that is not finite is written as `NaN`, `Infinity` or `-Infinity` and reads back as such.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from ablab.contract.failure import AblabError, DiskFullError, FailureKind

#: Names of unfinished files and folders start with this; readers skip them and `gc` removes old ones.
TEMPORARY = ".tmp-"
#: First line of a file of lines; a file without one is of format 1.
HEADER = b'{"format":1}\n'
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


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


def temporary_name(path: str | os.PathLike[str]) -> Path:
    """Return a fresh unfinished name beside `path`; it holds the process id of its writer."""
    path = Path(path)
    return path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write all of `data` to a file descriptor, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def write_bytes(path: str | os.PathLike[str], data: bytes, *, sync: bool = True) -> None:
    """Replace the content of `path` in one step; readers see the old content or the new, never a part.

    Missing parent folders are created. With `sync`, the content is on the device when this returns.

    Raises:
        DiskFullError: no space is left; `path` is as before.
    """
    path = Path(path)
    with naming_full_disk(path):
        try:
            temporary, handle = _create_temporary(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary, handle = _create_temporary(path)
        try:
            try:
                write_all(handle, data)
                if sync:
                    os.fsync(handle)
            finally:
                os.close(handle)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            sync_folder(path.parent)


def _create_temporary(path: Path) -> tuple[Path, int]:
    temporary = temporary_name(path)
    return temporary, os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def write_text(path: str | os.PathLike[str], text: str, *, sync: bool = True) -> None:
    """Replace the content of `path` with UTF-8 text in one step (see `write_bytes`)."""
    write_bytes(path, text.encode(), sync=sync)


def write_json(path: str | os.PathLike[str], obj: Any, *, sync: bool = True) -> None:
    """Replace the content of `path` with JSON in one step (see `write_bytes`); pydantic models are written whole."""
    try:
        data = json.dumps(obj, default=jsonable, ensure_ascii=False, indent=1).encode()
    except UnicodeEncodeError:
        # Undecodable bytes of a file name or of a program's output live in strings as lone surrogates.
        data = json.dumps(obj, default=jsonable, indent=1).encode()
    write_bytes(path, data + b"\n", sync=sync)


def publish_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write a JSON file that must not be there yet; of several publishers, exactly one succeeds.

    Raises:
        FileExistsError: the file exists; it is as before.
        DiskFullError: no space is left.
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        write_json(temporary, obj)
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def encode_line(obj: Any) -> bytes:
    """Return an object as one line of JSON; a quarter of the time that the standard encoder takes."""
    try:
        return to_json(obj, inf_nan_mode="constants", fallback=jsonable) + b"\n"
    except PydanticSerializationError:
        # Lone surrogates again; or a type that JSON does not know, which raises its TypeError here.
        return json.dumps(obj, default=jsonable, separators=(",", ":")).encode() + b"\n"


def jsonable(value: Any) -> Any:
    """Turn what JSON does not know into what it does: models, paths, sets, scalars and arrays of numpy or torch."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    for method in ("tolist", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file with as few system calls as possible (status reads ten thousand files)."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(handle, 65536):
            parts.append(part)
            if len(part) < 4096:
                break
        return b"".join(parts)
    finally:
        os.close(handle)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the JSON content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFile: it is not JSON; the message names file and line.
    """
    data = read_bytes(path)
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise CorruptFile(
            f"{path}, line {error.lineno}: not JSON ({error.msg}); the file was cut or edited: restore or delete it",
            file=str(path),
            row=error.lineno,
        ) from error
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise CorruptFile(
            f"{path}, line {row}: not UTF-8 text; restore or delete the file", file=str(path), row=row
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


def append_line(path: str | os.PathLike[str], obj: Any, *, sync: bool = False) -> None:
    """Append one JSON object as a whole line; several processes may append to the same file.

    A torn line that a killed writer left at the end is cut off first.

    Raises:
        DiskFullError: no space is left; nothing was appended.
    """
    line = encode_line(obj)
    handle = open_for_lines(path)
    try:
        with locked(handle):
            end = mend_last_line(handle)
            write_lines(handle, line if end else HEADER + line, end=end, path=path)
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def open_for_lines(path: str | os.PathLike[str]) -> int:
    """Open a file of lines for appending, creating it and its folder; return the descriptor."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    with naming_full_disk(path):
        try:
            return os.open(path, flags, 0o666)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, flags, 0o666)


def write_lines(handle: int, data: bytes, *, end: int, path: str | os.PathLike[str]) -> None:
    """Append whole lines by one write to a file that ends at `end`; on failure the file is as before.

    Raises:
        DiskFullError: no space is left.
    """
    with naming_full_disk(path):
        try:
            written = os.write(handle, data)
            if written < len(data):
                # A short write means that the disk is full; the second try brings its error.
                write_all(handle, data[written:])
        except OSError:
            os.ftruncate(handle, end)
            raise


@contextlib.contextmanager
def locked(handle: int) -> Iterator[None]:
    """Hold the exclusive advisory lock of an open file; without effect where the file system knows no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        held = True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        held = False
    try:
        yield
    finally:
        # Unlocked by name, since a child forked meanwhile shares the lock and would keep it.
        if held:
            fcntl.flock(handle, fcntl.LOCK_UN)


def mend_last_line(handle: int) -> int:
    """Cut a torn last line off a file open for reading and appending, or end it if it is whole; return the size."""
    size = os.fstat(handle).st_size
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return size
    start, tail = size, b""
    while start and b"\n" not in tail:
        start = max(0, start - 65536)
        tail = os.pread(handle, size - start, start)
    torn = tail.rpartition(b"\n")[2]
    if _parse(torn) is not None:
        write_all(handle, b"\n")
        return size + 1
    os.ftruncate(handle, size - len(torn))
    return size - len(torn)


def read_lines(path: str | os.PathLike[str], *, problems: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the JSON objects of a file of lines; a missing file has none, a torn last line is ignored.

    Args:
        path: the file.
        problems: when given, a corrupt line is skipped and described here instead of raising.

    Raises:
        CorruptFile: a line that is no JSON object; the message names file and line.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    return parse_lines(data, path, problems=problems)


def parse_lines(
    data: bytes, path: str | os.PathLike[str], *, problems: list[str] | None = None
) -> list[dict[str, Any]]:
    """Return the JSON objects of the bytes of a file of lines (see `read_lines`); `path` is for messages."""
    *whole, last = data.split(b"\n")
    found = []
    for row, line in enumerate(whole, 1):
        value = _parse(line)
        if value is not None:
            found.append(value)
        elif line.strip():
            message = f"{path}, line {row}: not a JSON object: {line[:60].decode(errors='replace')!r}"
            if problems is None:
                raise CorruptFile(f"{message}; restore the file or delete the line", file=str(path), row=row)
            problems.append(message)
    # An object that parses is complete, even where a person's editor left out the last newline.
    if last and (value := _parse(last)) is not None:
        found.append(value)
    if found and found[0].keys() == {"format"}:
        check_format(found.pop(0), path)
    return found


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


@contextlib.contextmanager
def atomic_folder(target: str | os.PathLike[str], *, replace: bool = False, sync: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block ends without an exception.

    After an exception or a kill, `target` is as before. With `replace`, an existing target and the new folder change
    names in one step (where the file system cannot do that, there is for an instant none).

    Raises:
        FileExistsError: `target` exists and `replace` is False.
        DiskFullError: no space is left.
    """
    target = Path(target)
    if target.exists() and not replace:
        raise FileExistsError(errno.EEXIST, "folder exists already", str(target))
    temporary = temporary_name(target)
    try:
        with naming_full_disk(target):
            temporary.mkdir(parents=True)
            yield temporary
            if sync:
                sync_tree(temporary)
            old = temporary if replace and _exchange(temporary, target) else None
            if old is None:
                old = _move_away(target) if replace else None
                _rename_folder(temporary, target)
            if sync:
                sync_folder(target.parent)
            if old is not None:
                shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _exchange(folder: Path, target: Path) -> bool:
    """Let two folders change names in one step; False when there is no target or the system cannot do it."""
    if not target.exists():
        return False
    import ctypes

    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    if exchange is None:
        return False
    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    done: int = exchange(here, os.fsencode(folder), here, os.fsencode(target), flag)
    return done == 0


def _rename_folder(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        raise FileExistsError(errno.EEXIST, "folder was made by another process meanwhile", str(target)) from error


def _move_away(target: Path) -> Path | None:
    old = temporary_name(target)
    try:
        target.rename(old)
    except FileNotFoundError:
        return None
    return old


def sync_tree(folder: str | os.PathLike[str]) -> None:
    """Make every file and name below `folder` durable."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if path.is_symlink():
                continue
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(root)
