"""Tasks and components are found by name or file, and every way to get it wrong is told."""

from __future__ import annotations

import importlib.metadata
import types

import pytest

from ablab.contract.registry import (
    RegistryError,
    built_in_tasks,
    component_file,
    find_component,
    find_task,
    task_names,
)
from ablab.contract.task import TaskSpec

TASK = """\
from ablab.contract.task import TaskSpec

SPEC = TaskSpec(name="mine", title="Mine", sections={}, stages={}, pipeline={})


def make():
    return SPEC


def needs_more(width):
    return SPEC


def wrong():
    return 3


def broken():
    raise ValueError("no model here")


number = 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(TASK)
    return tmp_path


def test_built_in_tasks_are_found_by_name():
    assert "language-modeling" in built_in_tasks()
    assert find_task("language-modeling").name == "language-modeling"


@pytest.mark.parametrize("name", ["mine.py:SPEC", "mine.py", "mine.py:make"])
def test_a_task_in_a_file(folder, name):
    task = find_task(name, folder=folder)
    assert isinstance(task, TaskSpec)
    assert task.name == "mine"


def test_a_file_is_imported_once_for_each_content(folder):
    first = find_task("mine.py:SPEC", folder=folder)
    assert find_task("mine.py:make", folder=folder) == first
    (folder / "mine.py").write_text(TASK.replace("Mine", "Changed"))
    assert find_task("mine.py:SPEC", folder=folder).title == "Changed"


def test_a_file_may_import_its_neighbours(folder):
    (folder / "beside_it.py").write_text("TITLE = 'From beside'\n")
    text = "from beside_it import TITLE\n" + TASK.replace('"Mine"', "TITLE")
    (folder / "mine.py").write_text(text)
    assert find_task("mine.py:SPEC", folder=folder).title == "From beside"


def test_a_task_of_an_installed_package(monkeypatch):
    point = types.SimpleNamespace(name="theirs", value="their.config:SPEC", load=lambda: find_task("language-modeling"))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == "ablab.tasks" else [])
    assert "theirs" in task_names()
    assert find_task("theirs").name == "language-modeling"

    def fail():
        raise ImportError("no module named torchx")

    point.load = fail
    with pytest.raises(RegistryError, match="no module named torchx"):
        find_task("theirs")


@pytest.mark.parametrize(
    ("name", "message", "suggestion"),
    [
        ("language-modelling", "unknown task", "language-modeling"),
        ("mien.py:SPEC", "no file mien.py", "mine.py"),
        ("mine.py:SPECS", "has no 'SPECS'", "SPEC"),
        ("mine.py:number", "is int", None),
        ("mine.py:needs_more", "has the signature (width)", None),
        ("mine.py:wrong", "returned int", None),
        ("mine.py:broken", "no model here", None),
        ("syntax.py:SPEC", "line 2", None),
        ("raises.py:SPEC", "line 3", None),
    ],
)
def test_what_is_no_task_is_told_with_what_was_expected(folder, name, message, suggestion):
    (folder / "syntax.py").write_text("x = 1\ny = = 2\n")
    (folder / "raises.py").write_text("x = 1\n\nraise RuntimeError('gone')\n")
    with pytest.raises(RegistryError) as caught:
        find_task(name, folder=folder)
    text = str(caught.value)
    assert message in text
    assert caught.value.suggestion == suggestion
    if suggestion != "language-modeling" and "cannot be imported" not in text:
        assert "TaskSpec" in text


COMPONENTS = """\
import numpy as np


def draw(shape, *, seed):
    return np.zeros(shape)


def flexible(*parts, **options):
    return parts


def more(shape, scale, *, seed):
    return scale


def no_seed(shape):
    return shape


class Made:
    def __init__(self, shape, *, seed):
        self.shape = shape


SCALE = 2.0
"""


def initialization(shape: tuple[int, ...], *, seed: int) -> object:
    """The signature a component must have here."""


@pytest.mark.parametrize("name", ["draw", "flexible", "Made"])
def test_a_component_that_fits_its_signature(folder, name):
    (folder / "parts.py").write_text(COMPONENTS)
    found = find_component(f"parts.py:{name}", folder=folder, like=initialization)
    assert found((2, 3), seed=1) is not None
    assert component_file(f"parts.py:{name}", folder=folder) == (folder / "parts.py").resolve()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("parts.py:more", "has the signature (shape, scale, *, seed) (missing a required argument: 'scale')"),
        ("parts.py:no_seed", "unexpected keyword argument 'seed'"),
        ("parts.py:SCALE", "is float, not callable"),
        ("parts.py:drow", "has no 'drow'"),
        ("partz.py:draw", "no file partz.py"),
        ("parts:draw", "not of the form file.py:Name"),
    ],
)
def test_a_component_that_does_not_fit_shows_the_expected_signature(folder, reference, message):
    (folder / "parts.py").write_text(COMPONENTS)
    with pytest.raises(RegistryError) as caught:
        find_component(reference, folder=folder, like=initialization)
    assert message in str(caught.value)
    assert "def initialization(shape: " in str(caught.value)
    assert "*, seed: " in str(caught.value)
