"""Finds tasks and components by the name a study gives them.

A name is a built-in one, one that an installed package registers (entry-point group "ablab.tasks"), or `file.py:Name`
beside the study. What a file's code does when it is imported is its author's; whatever goes wrong there becomes an
error that names the file.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ablab.contract.failure import ConfigError
from ablab.contract.frozen import frozen_file
from ablab.contract.local_imports import all_imported
from ablab.contract.task import TaskSpec

if TYPE_CHECKING:
    import inspect

GROUP = "ablab.tasks"

_EXPECTED_TASK = "a TaskSpec, or a function without parameters that returns one: def NAME() -> TaskSpec"


class RegistryError(ConfigError):
    """A name that leads to no task or component; `suggestion` is the nearest valid name."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message, suggestion=suggestion)
        self.suggestion = suggestion


def find_task(name: str, *, folder: Path | str | None = None) -> TaskSpec:
    """Return the task called `name`.

    Args:
        name: built-in name (language-modeling), name of an entry point, or `file.py:NAME` (NAME defaults to SPEC).
        folder: where relative files start; the study's folder.

    Raises:
        RegistryError: there is no such task, or what is there is not a task.
    """
    if is_file_reference(name):
        file, _, attribute = name.rpartition(":") if ".py:" in name else (name, "", "SPEC")
        found = _as_task(_from_file(file, attribute, folder=folder, expected=_EXPECTED_TASK), name)
        # Its code computes the task's stages, so its content belongs to their keys.
        path = component_file(file, folder=folder)
        files = dict.fromkeys([str(path), *map(str, all_imported(path)), *found.files])
        return dataclasses.replace(found, files=tuple(files))
    module = f"ablab.tasks.{name.replace('-', '_')}.config"
    if name in built_in_tasks():
        return _as_task(importlib.import_module(module).SPEC, name)
    for point in _entry_points():
        if point.name == name:
            try:
                return _as_task(point.load(), f"{name} (entry point {point.value})")
            except ConfigError:
                raise
            except Exception as error:
                raise RegistryError(f"the task {name} ({point.value}) cannot be imported: {_cause(error)}") from error
    valid = task_names()
    raise RegistryError(
        f"unknown task {name!r}; known: {', '.join(valid)}, or a file as path/to/file.py:SPEC", nearest(name, valid)
    )


def built_in_tasks() -> list[str]:
    """Return the names of the tasks that ship with Ablab."""
    folder = Path(__file__).parent.parent / "tasks"
    return sorted(path.parent.name.replace("_", "-") for path in folder.glob("*/config.py"))


def task_names() -> list[str]:
    """Return the names of all tasks, built in and registered by packages."""
    return sorted({*built_in_tasks(), *(point.name for point in _entry_points())})


def is_file_reference(name: str) -> bool:
    """Tell whether a name means code in a file of the user (`file.py:Name`)."""
    return ".py:" in name or name.endswith(".py")


def find_component(reference: str, *, folder: Path | str | None, like: Callable[..., Any]) -> Any:
    """Return the component at `file.py:Name`, checked against the signature it will be called with.

    Args:
        reference: `file.py:Name`, the file relative to `folder`.
        folder: the study's folder.
        like: a function (or class) whose parameters are those the component is called with.

    Raises:
        RegistryError: no such file or name, code that cannot be imported, or another signature; the message shows
            the expected one.
    """
    file, colon, attribute = reference.rpartition(":")
    expected = _signature_text(like)
    if not colon or not file.endswith(".py"):
        raise RegistryError(f"{reference!r} is not of the form file.py:Name; expected {expected}")
    found = _from_file(file, attribute, folder=folder, expected=expected)
    if not callable(found):
        raise RegistryError(f"{reference} is {type(found).__name__}, not callable; expected {expected}")
    problem = _mismatch(found, like)
    if problem:
        raise RegistryError(f"{reference} {problem}; expected {expected}")
    return found


def component_file(reference: str, *, folder: Path | str | None) -> Path:
    """Return the file of a `file.py:Name` reference, absolute; its content belongs to the keys of what it computes.

    In a worker that runs from a frozen source, that is the copy frozen at launch.
    """
    file = reference.rpartition(":")[0] if ".py:" in reference else reference
    frozen = frozen_file(file, folder)
    if frozen is not None:
        return frozen
    return (Path(folder or ".") / Path(file).expanduser()).resolve()


def _from_file(file: str, attribute: str, *, folder: Path | str | None, expected: str) -> Any:
    path = component_file(file, folder=folder)
    if not path.is_file():
        near = nearest(path.name, [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else [])
        raise RegistryError(f"no file {file} (looked for {path}); expected there {expected}", near)
    module = _import_file(path)
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise RegistryError(f"{file} has no {attribute!r}; expected there {expected}", nearest(attribute, public))
    return getattr(module, attribute)


def _import_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, once for each content; its folder can be imported from meanwhile."""
    import hashlib
    import importlib.util

    content = hashlib.blake2b(path.read_bytes() + str(path).encode(), digest_size=8).hexdigest()
    name = f"ablab_file_{path.stem}_{content}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RegistryError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RegistryError(f"{path} cannot be imported: {_cause(error, path)}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _as_task(found: Any, name: str) -> TaskSpec:
    if isinstance(found, TaskSpec):
        return found
    if callable(found):
        problem = _mismatch(found, _no_parameters)
        if problem:
            raise RegistryError(f"{name} {problem}; expected {_EXPECTED_TASK}")
        try:
            made = found()
        except Exception as error:
            raise RegistryError(f"{name} failed: {_cause(error)}; expected {_EXPECTED_TASK}") from error
        if isinstance(made, TaskSpec):
            return made
        raise RegistryError(f"{name} returned {type(made).__name__}; expected {_EXPECTED_TASK}")
    raise RegistryError(f"{name} is {type(found).__name__}; expected {_EXPECTED_TASK}")


def _no_parameters() -> None:
    """Stand for the signature of a function without parameters."""


def _mismatch(found: Callable[..., Any], like: Callable[..., Any]) -> str | None:
    """Return why `found` cannot be called as `like` is, or None when it can."""
    import inspect

    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return None
    positional: list[None] = []
    named: dict[str, None] = {}
    for parameter in _parameters(like):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            positional.append(None)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = None
    try:
        signature.bind(*positional, **named)
    except TypeError as error:
        return f"has the signature {signature} ({error})"
    return None


def _parameters(like: Callable[..., Any]) -> list[inspect.Parameter]:
    import inspect

    return list(inspect.signature(like).parameters.values())


def _signature_text(like: Callable[..., Any]) -> str:
    import inspect

    name = getattr(like, "__name__", "Name")
    word = "class" if inspect.isclass(like) else "def"
    return f"{word} {name}{inspect.signature(like)}"


def _entry_points() -> Iterable[Any]:
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)


def _cause(error: BaseException, path: Path | None = None) -> str:
    """Return an error of the user's code as one line, with the line of their file it came from."""
    import traceback

    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if path is None or frame.filename == str(path):
            line = frame.lineno if line is None or path is not None else line
    where = f" (line {line})" if line is not None else ""
    return f"{type(error).__name__}: {error}{where}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name of several that is written most like `name`; None where none is."""
    import difflib

    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return close[0] if close else None
