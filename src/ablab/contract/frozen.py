"""Where the frozen copy of a study's own code stands, so that an edit during a run changes nothing that runs.

A launch copies the files (`ablab.store.source`); a worker says by a variable which copy it runs from.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

#: Variable that names the frozen source of the order a worker does.
VARIABLE = "ABLAB_FROZEN_SOURCE"


def frozen_place(file: str | os.PathLike[str], study_folder: str | os.PathLike[str] | None) -> str:
    """Return where the copy of a code file or folder stands below the frozen source.

    A path below the study folder stays as it is, any other goes below a folder named by a hash of its place.
    """
    base = Path(study_folder or ".").resolve()
    resolved = Path(base, Path(file).expanduser()).resolve()
    if resolved.is_relative_to(base):
        return f"study/{resolved.relative_to(base).as_posix()}"
    return f"study/_outside/{hashlib.sha256(str(resolved.parent).encode()).hexdigest()[:8]}/{resolved.name}"


def frozen_file(file: str | os.PathLike[str], study_folder: str | os.PathLike[str] | None) -> Path | None:
    """Return the frozen copy of a code file, in a worker that runs from one that holds it."""
    source = os.environ.get(VARIABLE)
    if not source:
        return None
    path = Path(source, frozen_place(file, study_folder))
    return path if path.is_file() else None
