"""Which files below a folder a Python file imports, as its text tells; nothing is run."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath


def imported_files(file: Path, base: Path) -> list[str]:
    """Return the modules below `base` that a Python file imports, as paths relative to it; none for unreadable code."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = [] if not node.level else list(file.parent.relative_to(base).parts[: -(node.level - 1) or None])
            module = ".".join([*package, *([node.module] if node.module else [])])
            names = [module, *(f"{module}.{alias.name}" if module else alias.name for alias in node.names)]
        for name in names:
            for root in dict.fromkeys((file.parent, base)):
                found |= dict.fromkeys(
                    str(PurePosixPath(root.relative_to(base), path)) for path in module_files(name, root)
                )
    return list(found)


def module_files(name: str, base: Path) -> Iterator[str]:
    """Yield the file of a module and the packages above it, where they are below `base`."""
    parts = name.split(".") if name else []
    for count in range(1, len(parts) + 1):
        path = "/".join(parts[:count])
        if is_file(base / f"{path}.py"):
            yield f"{path}.py"
        elif is_file(base / path / "__init__.py"):
            yield f"{path}/__init__.py"


def is_file(path: Path) -> bool:
    """Whether a path is a file; no for a name that cannot be one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def with_imports(files: Iterable[str], folder: Path) -> list[str]:
    """Return code files, relative to a folder, and the files beside them that they import: together they compute."""
    found = dict.fromkeys(files)
    for file in list(found):
        path = Path(folder, Path(file).expanduser())
        if path.suffix == ".py":
            found |= dict.fromkeys(os.path.relpath(other, folder) for other in all_imported(path))
    return list(found)


def all_imported(file: Path, *, most: int = 500) -> list[Path]:
    """Return the files beside a Python file that it imports, directly and through others."""
    base, found, queue = file.parent, dict[Path, None](), [file]
    while queue and len(found) < most:
        one = queue.pop(0)
        for path in imported_files(one, base):
            other = base / path
            if other != file and other not in found:
                found[other] = None
                queue.append(other)
    return list(found)
