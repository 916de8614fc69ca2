"""What data and code are, by content: hashes of files and folders, cached by size and modification time.

Names of the hub become revisions in `ablab.store.hub`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import time
from collections.abc import Iterable
from pathlib import Path

from ablab.contract.failure import AblabError, DataError
from ablab.store.files import TEMPORARY, check_format, read_json, write_json
from ablab.store.manifest import sha256

#: A file changed less than this many seconds ago may change again within the clock's resolution: it is not cached.
_SETTLED = 2.0
#: Names that a folder's fingerprint leaves out: they come and go without changing the data.
_IGNORED = frozenset({".git", "__pycache__", ".DS_Store", ".ipynb_checkpoints"})


def cache_folder() -> Path:
    """Return the local cache folder of Ablab ($XDG_CACHE_HOME/ablab or ~/.cache/ablab); it can be deleted any time."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ablab"


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 (hex) of a file's content, or of the names and contents of a folder's files.

    The hash of a file is kept in the cache folder by its path, size, modification time and inode. Symbolic links are
    followed; hidden version control and byte code are left out of folders.

    Raises:
        DataError: there is no such file or folder, or it cannot be read.
    """
    path = Path(path)
    try:
        if not path.is_dir():
            return _file(path)
        lines = [f"{path_.relative_to(path).as_posix()}\0{_file(path_)}\n" for path_ in folder_files(path)]
    except OSError as error:
        found = "no such file or folder" if isinstance(error, FileNotFoundError) else error.strerror
        raise DataError(f"{error.filename or path}: {found}; the study names it as data", file=str(path)) from error
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def source_digest(files: Iterable[str | os.PathLike[str]]) -> str:
    """Return the SHA-256 (hex) of code files: their contents and their names below the folder they have in common.

    The order of the files counts for nothing, and neither does where the common folder is.

    Raises:
        DataError: a file is missing.
    """
    paths = sorted({Path(file).resolve() for file in files})
    base = os.path.commonpath([path.parent for path in paths]) if paths else ""
    entries = [f"{path.relative_to(base).as_posix()}\0{fingerprint(path)}\n" for path in paths]
    return hashlib.sha256("".join(entries).encode("utf-8", "surrogateescape")).hexdigest()


def bundled_folder(name: str) -> Path:
    """Return the folder of a data set that ships with the package.

    Raises:
        DataError: there is none of this name; the message lists those there are.
    """
    spec = importlib.util.find_spec("ablab")
    places = spec.submodule_search_locations if spec is not None else None
    root = Path(next(iter(places or ["."]))) / "bundled"
    if name and (root / name / "SOURCE.json").is_file() and Path(name).name == name:
        return root / name
    known = sorted(path.parent.name for path in root.glob("*/SOURCE.json"))
    raise DataError(f"no bundled data set is called {name!r}; there are: {', '.join(known) or 'none'}", name=name)


def bundled_fingerprint(name: str) -> str:
    """Return the fingerprint of a bundled data set, checked against the checksums of its SOURCE.json.

    Only the files that SOURCE.json lists count, so that a note beside them changes no key.

    Raises:
        DataError: there is no such data set, or a file is not what SOURCE.json says.
    """
    folder = bundled_folder(name)
    listed = read_json(folder / "SOURCE.json").get("files", {})
    lines = []
    for file, wanted in sorted(listed.items()):
        found = fingerprint(folder / file)
        if found != wanted:
            raise DataError(
                f"{folder / file}: its content is not what SOURCE.json says (SHA-256 {found[:12]}…, expected "
                f"{str(wanted)[:12]}…): reinstall ablab",
                file=str(folder / file),
            )
        lines.append(f"{file}\0{found}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def folder_files(folder: Path) -> list[Path]:
    """Return the files that count in a folder, sorted; version control and byte code are left out."""
    found = []
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name not in _IGNORED and not name.startswith(TEMPORARY)]
        found += [Path(root, name) for name in names if name not in _IGNORED and not name.startswith(TEMPORARY)]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _file(path: Path) -> str:
    stat = path.stat()
    entry = _entry(path)
    identity = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    with contextlib.suppress(OSError, AblabError, TypeError, KeyError):
        cached = read_json(entry)
        check_format(cached, entry)
        if cached["identity"] == identity:
            return str(cached["sha256"])
    _, digest = sha256(path)
    after = path.stat()
    settled = time.time() - stat.st_mtime > _SETTLED
    if settled and [after.st_size, after.st_mtime_ns, after.st_ino] == identity:
        # A cache that cannot be written (read-only home, full disk) costs time, nothing else.
        with contextlib.suppress(OSError, AblabError):
            content = {"format": 1, "path": str(path.resolve()), "identity": identity, "sha256": digest}
            write_json(entry, content, sync=False)
    return digest


def _entry(path: Path) -> Path:
    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / "fingerprints" / name[:2] / f"{name}.json"
