"""Files that survive any kill: whole or not there, and folders likewise.

Every file of the store goes through here; files of lines are in `ablab.store.lines`, what can be wrong with a file in
`ablab.store.faults`, and both can be had from here. What a file means (its keys, its place) belongs to others.

JSON is Python's: a float that is not finite is written as `NaN`, `Infinity` or `-Infinity` and reads back as such.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablab.store.faults import CorruptFile, UnreadableFormat, check_format, naming_full_disk
from ablab.store.lines import append_line, encode_line, jsonable, locked, parse_lines, read_lines, write_all

__all__ = [
    "TEMPORARY",
    "CorruptFile",
    "UnreadableFormat",
    "append_line",
    "atomic_folder",
    "check_format",
    "encode_line",
    "jsonable",
    "locked",
    "naming_full_disk",
    "parse_lines",
    "publish_json",
    "read_bytes",
    "read_json",
    "read_lines",
    "sync_folder",
    "sync_tree",
    "temporary_name",
    "write_all",
    "write_bytes",
    "write_json",
    "write_text",
]

#: Names of unfinished files and folders start with this; readers skip them and `gc` removes old ones.
TEMPORARY = ".tmp-"


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
