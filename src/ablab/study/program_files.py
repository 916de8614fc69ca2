"""Which files beside a study a command uses, as far as its text and its Python code tell.

An audit compares them with what the study declares; `ablab new --command` declares them. Nothing is run.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ablab.contract.command import Command
from ablab.contract.local_imports import imported_files, is_file, module_files
from ablab.contract.placeholders import find

#: Python files that are followed for their imports; a larger program is declared by its folders.
_MOST = 500


def used_files(parameters: Command, base: Path) -> dict[str, str]:
    """Return the files (and packages) below `base` that a command uses: path to how it is known.

    Args:
        parameters: of the command.
        base: folder that the command's relative paths start in.
    """
    found: dict[str, str] = {}
    for path in named_files(parameters, base):
        found.setdefault(path, "the command names it")
    queue = [path for path in (*found, *parameters.code) if path.endswith(".py")]
    queue += [str(file.relative_to(base)) for path in parameters.code for file in sorted((base / path).rglob("*.py"))]
    seen: set[str] = set()
    while queue and len(seen) < _MOST:
        path = queue.pop(0)
        if path in seen:
            continue
        seen.add(path)
        for other in imported_files(base / path, base):
            found.setdefault(other, f"{path} imports it")
            queue.append(other)
    return found


def undeclared_files(parameters: Command, base: Path) -> dict[str, str]:
    """Return those of the used files that are neither code nor data of the command."""
    declared = [PurePosixPath(path) for path in (*parameters.code, *parameters.data)]
    return {
        path: how
        for path, how in used_files(parameters, base).items()
        if not any(PurePosixPath(path).is_relative_to(known) for known in declared)
    }


def named_files(parameters: Command, base: Path) -> Iterator[str]:
    """Yield the files that the words of a command name, as it names them."""
    words = parameters.words()
    if parameters.shell:
        try:
            words = shlex.split(words[0], comments=True)
        except ValueError:
            words = words[0].split()
    for position, word in enumerate(words):
        if find([word]):
            continue
        if position and words[position - 1] == "-m":
            yield from module_files(word, base)
        for part in dict.fromkeys((word, word.partition("=")[2])):
            if part and is_file(base / part) and (position or "/" in part) and not _is_installed(part):
                yield str(PurePosixPath(part))


def _is_installed(part: str) -> bool:
    """Whether a path is a program of the machine, which the environment record tells of."""
    return part.startswith(("/usr/", "/bin/", "/opt/", "/dev/", "/proc/"))
