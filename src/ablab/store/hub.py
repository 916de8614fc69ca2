"""Names of the hub resolve once to revisions, kept in a lock file beside the study; and data references in a key.

`<study>.lock.json` holds {"format": 1, "revisions": {"dataset:roneneldan/TinyStories": "<revision>"}}. Out of reach,
a name plans as `name@unresolved`, which never runs so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ablab.contract.failure import DataError
from ablab.contract.task import DataReference
from ablab.store.files import CorruptFile, check_format, read_json, write_json
from ablab.store.fingerprint import bundled_fingerprint, fingerprint

UNRESOLVED = "unresolved"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRUE = frozenset({"1", "on", "yes", "true"})


def lock_path(study: str | os.PathLike[str]) -> Path:
    """Return the lock file of a study file: `gpt.yaml` has `gpt.lock.json` beside it."""
    return Path(study).with_suffix(".lock.json")


def read_lock(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return revision by name of a lock file; a missing file holds none.

    Raises:
        CorruptFile: it is not a lock file.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        return {}
    check_format(content, path)
    revisions = content.get("revisions")
    if not isinstance(revisions, dict) or not all(isinstance(value, str) for value in revisions.values()):
        raise CorruptFile(f"{path}: expected revisions by name; delete the file to resolve them anew", file=str(path))
    return revisions


def write_lock(path: str | os.PathLike[str], revisions: Mapping[str, str]) -> None:
    """Write a lock file, sorted by name; nothing is written when it says the same already."""
    if dict(revisions) != read_lock(path):
        write_json(path, {"format": 1, "revisions": dict(sorted(revisions.items()))})


def lock_name(reference: DataReference) -> str:
    """Return the name under which a hub reference stands in the lock file."""
    wanted = f"@{reference.revision}" if reference.revision else ""
    return f"{reference.repository}:{reference.name}{wanted}"


def resolve(
    reference: DataReference, lock: Mapping[str, str], *, study_folder: str | os.PathLike[str] | None = None
) -> str:
    """Return what a reference is, for a key: "name@revision", "name@unresolved", or "file.txt@sha256:..." for files.

    Args:
        reference: the data.
        lock: content of the study's lock file (`read_lock`); the network is never asked here.
        study_folder: where relative paths start; None means the working folder.

    Raises:
        DataError: a file, folder or bundled name that does not exist.
    """
    if reference.kind == "hub":
        revision = reference.revision if _is_exact(reference) else lock.get(lock_name(reference), UNRESOLVED)
        return f"{reference.name}@{revision}"
    if reference.kind == "bundled":
        return f"{reference.name}@sha256:{bundled_fingerprint(reference.name)}"
    path = Path(study_folder or ".", Path(reference.name).expanduser())
    # A path is no part of what the data is, except its ending, which says how to read it.
    return f"{reference.kind}{path.suffix}@sha256:{fingerprint(path)}"


def extend_lock(
    path: str | os.PathLike[str],
    references: Iterable[DataReference],
    *,
    timeout: float = 5.0,
    problems: list[str] | None = None,
) -> dict[str, str]:
    """Resolve the hub references that a lock file lacks, write it, and return its content.

    Names out of reach stay out of the file. After one name could not be reached, the network is not asked again.

    Args:
        path: the lock file.
        references: data of any kind; only hub names without an exact revision are looked at.
        timeout: seconds the hub may take to answer.
        problems: when given, names that the hub refuses are described here, and the others still resolve.

    Raises:
        DataError: the hub has no such name or revision, or it is gated.
    """
    lock = read_lock(path)
    online = True
    for reference in references:
        name = lock_name(reference)
        if reference.kind != "hub" or _is_exact(reference) or name in lock:
            continue
        revision = cached_revision(reference)
        if revision is None and online:
            try:
                revision, online = online_revision(reference, timeout=timeout)
            except DataError as error:
                if problems is None:
                    raise
                problems.append(str(error))
        if revision is not None:
            lock[name] = revision
    write_lock(path, lock)
    return lock


def _is_exact(reference: DataReference) -> bool:
    return reference.revision is not None and _COMMIT.fullmatch(reference.revision) is not None


def cached_revision(reference: DataReference) -> str | None:
    """Return the revision that the local hub cache holds of a name; None when it holds none."""
    folder = hub_cache() / f"{reference.repository}s--{reference.name.replace('/', '--')}" / "refs"
    try:
        found = (folder / (reference.revision or "main")).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return found if _COMMIT.fullmatch(found) else None


def hub_cache() -> Path:
    """Return the folder where huggingface_hub keeps what it downloaded."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if value := os.environ.get(variable):
            return Path(value).expanduser() / below
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "hub"


def is_offline() -> bool:
    """Whether the user forbade asking the hub (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE


def online_revision(reference: DataReference, *, timeout: float = 5.0) -> tuple[str | None, bool]:
    """Ask the hub for the revision of a name.

    Returns:
        The revision, or None; and whether the hub can be asked again (False: offline, out of reach, or its library
        is not installed).

    Raises:
        DataError: the hub answers that there is no such repository or revision, or that it is gated.
    """
    if is_offline():
        return None, False
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        return None, False
    what = f"{reference.path or reference.repository}: {reference.name!r}"
    try:
        info = HfApi().repo_info(
            reference.name, repo_type=reference.repository, revision=reference.revision, timeout=timeout
        )
    except GatedRepoError as error:
        raise DataError(
            f"{what} is gated: accept its licence on the hub and set HF_TOKEN", name=reference.name
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"{what} has no revision {reference.revision!r} on the hub", name=reference.name) from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"{what} is no {reference.repository} of the hub, or a private one that needs HF_TOKEN", name=reference.name
        ) from error
    except Exception:  # the library lets through errors of whichever HTTP client it uses
        return None, False
    return (info.sha if isinstance(info.sha, str) else None), True
