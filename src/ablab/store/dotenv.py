"""`.env` beside a study: variables for the processes of this lab, never for its store.

What is in the file is private by custom: `ablab.store.redact` hides its values wherever they would be written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from ablab.store.redact import FILES_VARIABLE, read_env


def load_env(
    folder: str | os.PathLike[str] | None, *, environment: MutableMapping[str, str] | None = None
) -> Mapping[str, str]:
    """Set the variables of `.env` in a folder that are not set already; return those of the file.

    Args:
        folder: the study's folder; None reads nothing.
        environment: variables to add to; None means this process's, which its children inherit.
    """
    variables = os.environ if environment is None else environment
    if folder is None:
        return {}
    path = Path(folder, ".env").resolve()
    found = read_env(path)
    for name, value in found.items():
        variables.setdefault(name, value)
    if found:
        known = filter(None, variables.get(FILES_VARIABLE, "").split(os.pathsep))
        variables[FILES_VARIABLE] = os.pathsep.join(dict.fromkeys([*known, str(path)]))
    return found
