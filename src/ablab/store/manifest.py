"""Manifests: sizes and checksums that make a folder (a checkpoint) valid or not there at all.

`manifest.json` is written last, so a folder without one was never finished. Which files a checkpoint holds belongs to
its writer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablab.contract.failure import AblabError
from ablab.store.files import (
    TEMPORARY,
    CorruptFile,
    check_format,
    naming_full_disk,
    read_json,
    sync_folder,
    write_json,
)

NAME = "manifest.json"
_CHUNK = 1 << 20


def write_manifest(folder: str | os.PathLike[str], **extra: Any) -> Path:
    """Record size and SHA-256 of every file below `folder` in its manifest; return the manifest's path.

    The files are on the device before the manifest names them.

    Args:
        folder: the folder, whose files nobody writes any more.
        **extra: values kept beside the list of files (step, metrics).

    Raises:
        DiskFullError: no space is left; there is no manifest then.
    """
    folder = Path(folder)
    files = {}
    with naming_full_disk(folder):
        for relative in listing(folder):
            path = folder / relative
            size, digest = sha256(path, sync=True)
            files[relative] = {"bytes": size, "sha256": digest}
        for parent in sorted({(folder / relative).parent for relative in files} | {folder}):
            sync_folder(parent)
        write_json(folder / NAME, {"format": 1, **extra, "files": files})
    return folder / NAME


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a folder's manifest: {"format", "files": {name: {"bytes", "sha256"}}, and what its writer added}.

    Raises:
        CorruptFile: there is none, or it is not what was written.
    """
    path = Path(folder) / NAME
    try:
        manifest = read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptFile(f"{path}: there is no manifest, so the folder was never finished", file=str(path)) from error
    check_format(manifest, path)
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(_is_entry(name, entry) for name, entry in files.items()):
        raise CorruptFile(f"{path}: expected files with their bytes and sha256", file=str(path))
    found: dict[str, Any] = manifest
    return found


def check_manifest(folder: str | os.PathLike[str], *, deep: bool = True) -> list[str]:
    """Return what is wrong with a folder, one sentence a problem; none means that it is whole.

    Args:
        folder: the folder with its manifest.
        deep: compare checksums too; False compares names and sizes only.
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
    except AblabError as error:
        return [str(error)]
    problems = (_problem(folder / name, entry, deep=deep) for name, entry in manifest["files"].items())
    return [problem for problem in problems if problem]


def is_valid(folder: str | os.PathLike[str], *, deep: bool = True) -> bool:
    """Whether the folder is whole."""
    return not check_manifest(folder, deep=deep)


def listing(folder: Path) -> Iterator[str]:
    """Yield the files below `folder` by relative name with forward slashes, sorted; unfinished ones are left out."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
        for name in names:
            if not name.startswith(TEMPORARY):
                found.append(Path(root, name).relative_to(folder).as_posix())
    yield from sorted(name for name in found if name != NAME)


def sha256(path: str | os.PathLike[str], *, sync: bool = False) -> tuple[int, str]:
    """Return size in bytes and SHA-256 in hex of a file, read in parts; with `sync`, make it durable first."""
    digest, size = hashlib.sha256(), 0
    with Path(path).open("rb", buffering=0) as file:
        if sync:
            os.fsync(file.fileno())
        while part := file.read(_CHUNK):
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()


def _is_entry(name: str, entry: Any) -> bool:
    inside = not name.startswith("/") and ".." not in name.split("/")
    return inside and isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and "sha256" in entry


def _problem(path: Path, entry: dict[str, Any], *, deep: bool) -> str | None:
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            return f"{path}: {size} bytes, the manifest says {entry['bytes']}"
        if deep and sha256(path)[1] != entry["sha256"]:
            return f"{path}: its content is not what the manifest says (SHA-256 differs)"
    except FileNotFoundError:
        return f"{path}: missing, the manifest names it"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    return None
