"""Freezing source: what computes a run is copied into the store once, so that an edit changes nothing that runs.

`lab/sources/<digest>/` holds `ablab/` and `study/` and is shared by every launch with the same code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablab.contract.failure import ConfigError
from ablab.contract.frozen import frozen_place
from ablab.store.files import atomic_folder
from ablab.store.fingerprint import folder_files
from ablab.store.manifest import is_valid, read_manifest, sha256, write_manifest

__all__ = ["freeze_source", "frozen_place", "package_folder"]

_LEFT_OUT = frozenset({"__pycache__"})


def package_folder() -> Path:
    """Return the folder that Ablab's own code is imported from."""
    spec = importlib.util.find_spec("ablab")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the package ablab is not importable as a folder; reinstall it")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def freeze_source(
    target: str | os.PathLike[str],
    *,
    study_folder: str | os.PathLike[str] | None = None,
    files: Iterable[str | os.PathLike[str]] = (),
) -> dict[str, Any]:
    """Copy Ablab's source and the study's own code files below `target`, once for each distinct content.

    Args:
        target: `lab/sources`; the copy is `target/<digest>/`.
        study_folder: where relative `files` start.
        files: code files and folders of the study (`file.py:Name` components, scripts); a folder is taken whole, as
            it is hashed; paths inside the study folder are kept.

    Returns:
        {"digest", "path" (the folder to put first on the import path), "study" (folder of the study's files),
        "files", "bytes"}.

    Raises:
        ConfigError: a file is missing.
        DiskFullError: no space is left.
    """
    target = Path(target)
    files = list(files)
    while True:
        wanted = _package_files() | _study_files(study_folder, files)
        digests = {name: sha256(path)[1] for name, path in sorted(wanted.items())}
        digest = _combined(digests)
        folder = target / digest
        if is_valid(folder) or _copy(wanted, digests, folder):
            break
    # In use from now on: an old source that nothing leads back to may be removed (`old_sources`).
    os.utime(folder)
    return {
        "digest": digest,
        "path": str(folder),
        "study": str(folder / "study"),
        "files": len(wanted),
        "bytes": sum(path.stat().st_size for path in wanted.values()),
    }


def _combined(digests: dict[str, str]) -> str:
    text = "".join(f"{name}\0{digest}\n" for name, digest in digests.items())
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


class _EditedMeanwhile(Exception):
    """A file changed between hashing and copying."""


def _copy(wanted: dict[str, Path], digests: dict[str, str], folder: Path) -> bool:
    """Copy the files; False when a file was edited or another launch froze meanwhile, so that one looks again."""
    try:
        with atomic_folder(folder, replace=folder.exists()) as temporary:
            for name, path in wanted.items():
                place = temporary / name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
            write_manifest(temporary)
            if {name: entry["sha256"] for name, entry in read_manifest(temporary)["files"].items()} != digests:
                raise _EditedMeanwhile
    except (_EditedMeanwhile, FileExistsError, FileNotFoundError):
        return False
    return True


def _package_files() -> dict[str, Path]:
    root = package_folder()
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith(".")]
        for name in names:
            if not name.endswith((".pyc", ".pyo")) and not name.startswith("."):
                path = Path(folder, name)
                found[f"ablab/{path.relative_to(root).as_posix()}"] = path
    return found


def _study_files(folder: str | os.PathLike[str] | None, files: Iterable[str | os.PathLike[str]]) -> dict[str, Path]:
    base = Path(folder or ".").resolve()
    found: dict[str, Path] = {}
    for file in files:
        path = Path(base, Path(file).expanduser())
        if not path.exists():
            raise ConfigError(f"{path}: no such code file; the study names it", file=str(path))
        place = frozen_place(path, base)
        if path.is_dir():
            found |= {f"{place}/{one.relative_to(path).as_posix()}": one for one in folder_files(path)}
        else:
            found[place] = path
    return found
