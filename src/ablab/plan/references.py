"""What a study reads from outside the store, by content: files and folders by fingerprint, hub names by revision.

Each reference is looked at once a plan. What is missing or out of reach is not an error here: the run that reads it
plans as unresolved and never starts, so that a plan can be shown and audited anywhere.
"""

from __future__ import annotations

from pathlib import Path

from ablab.contract.failure import DataError
from ablab.contract.local_imports import with_imports
from ablab.contract.task import DataReference
from ablab.store.fingerprint import source_digest
from ablab.store.hub import UNRESOLVED, lock_path, read_lock, resolve


class References:
    """Contents of data references and code files of one study.

    Args:
        study: path of the study file; relative paths start at its folder, and its lock file stands beside it.
    """

    def __init__(self, study: str) -> None:
        self.folder = Path(study).resolve().parent if study else Path.cwd()
        self._lock = read_lock(lock_path(study)) if study else {}
        self._known: dict[DataReference, tuple[str, bool]] = {}
        self._digests: dict[tuple[str, ...], str] = {}

    def resolve(self, reference: DataReference) -> tuple[str, bool]:
        """Return the content of a reference, and whether it is known.

        For the hub that is "name@revision"; for anything else the hash alone, since a path is not what data is.
        """
        found = self._known.get(reference)
        if found is None:
            found = self._known[reference] = self._resolve(reference)
        return found

    def _resolve(self, reference: DataReference) -> tuple[str, bool]:
        try:
            text = resolve(reference, self._lock, study_folder=self.folder)
        except DataError:
            return f"{reference.name}@{UNRESOLVED}", False
        if reference.kind == "hub":
            return text, not text.endswith(f"@{UNRESOLVED}")
        return text.rpartition("@")[2], True

    def digest(self, files: list[str]) -> str:
        """Return the digest of code files and what they import beside them. Raises DataError when one is missing."""
        names = tuple(files)
        if names not in self._digests:
            every = with_imports(files, self.folder)
            self._digests[names] = source_digest([self.folder / Path(name).expanduser() for name in every])
        return self._digests[names]
