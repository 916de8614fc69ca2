"""Whatever a study file holds, loading either works or tells problems with their lines; nothing else escapes."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablab.study.loading import StudyError, load_text
from ablab.study.schema import Study

WORDS = [
    "name", "task", "seeds", "defaults", "experiments", "matrix", "comparisons", "references", "profiles", "retention",
    "compute", "accept", "model", "data", "pipeline", "train", "prepare", "evaluate", "select", "kind", "needs", "like",
    "base", "frozen", "axes", "exclude", "layers", "model.layers", "heads", "connector", "sweep", "metric", "steps",
    "epochs", "variants", "baseline", "factor", "criterion", "controls", "planned", "estimate", "base.train@best",
    "val/loss", "ratio <= 1", "task.py:SPEC", "source", "<<", "4h31m", "*", "full", "null", "~", "files", "extra",
]  # fmt: skip
SCALARS = st.one_of(
    st.sampled_from(WORDS), st.integers(), st.floats(), st.booleans(), st.none(),
    st.text(string.printable, max_size=8),
    st.sampled_from(["&a x", "*a", "!!int x", "'", "[", "}", "- ", "? ", "|", "1e999"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip
SLOW = settings(
    deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def written(value: object) -> str:
    """Write a value as flow YAML, without quoting text that would need it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def check(text: str, folder: Path, **options: object) -> None:
    try:
        study = load_text(text, path=folder / "study.yaml", **options)
    except StudyError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.message
            for leak in ("pydantic", "Input should", "Value error", "Traceback"):
                assert leak in text or leak not in str(problem)
            if not problem.file.startswith(("override", "--quick")):
                assert problem.line is not None, str(problem)
                assert 1 <= problem.line <= len(text.splitlines()) + 2
    else:
        assert isinstance(study, Study)


@SLOW
@given(st.data())
def test_mutated_lines(folder, study_text, data):
    lines = study_text.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        if not lines:
            break
        index = data.draw(st.integers(0, len(lines) - 1))
        action = data.draw(st.sampled_from(["delete", "duplicate", "indent", "dedent", "swap", "cut", "tab", "value"]))
        line = lines[index]
        if action == "delete":
            del lines[index]
        elif action == "duplicate":
            lines.insert(index, line)
        elif action == "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[index], lines[other] = lines[other], lines[index]
        else:
            key = line.partition(":")[0]
            lines[index] = {
                "indent": "  " + line, "dedent": line.removeprefix("  "), "tab": "\t" + line,
                "cut": line[: data.draw(st.integers(0, len(line)))],
                "value": f"{key}: {written(data.draw(VALUES))}" if action == "value" else "",
            }[action]  # fmt: skip
    profile = data.draw(st.sampled_from(["full", "laptop", "smoke"]))
    check("\n".join(lines), folder, profile=profile, quick=data.draw(st.booleans()))


@SLOW
@given(st.data())
def test_retyped_values(folder, study_text, data):
    pieces = study_text.replace("{", "{\0").replace("}", "\0}").replace(", ", ",\0 ").replace(": ", ":\0 ").split("\0")
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(pieces) - 1))
        end = next((mark for mark in ("\n", ",", ":", "{") if pieces[index].endswith(mark)), "")
        pieces[index] = f" {written(data.draw(VALUES))}{end}"
    check("".join(pieces), folder)


@SLOW
@given(st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=6))
def test_random_documents(folder, document):
    text = "".join(f"{key}: {written(value)}\n" for key, value in {"task": "task.py:SPEC", **document}.items())
    check(text, folder)


@SLOW
@given(st.text(max_size=200))
def test_random_text(folder, text):
    check(text, folder)


@SLOW
@given(st.text("-?:,[]{}#&*!|>'\"%@` \n\tab1~<", max_size=60))
def test_random_indicators(folder, text):
    check(text, folder)


@SLOW
@given(
    st.lists(
        st.tuples(st.sampled_from(WORDS), st.sampled_from(["", ".", "[0]"]), st.text(max_size=4), VALUES), max_size=3
    )
)
def test_random_overrides(folder, study_text, pieces):
    overrides = [f"{word}{mark}{more}={written(value)}" for word, mark, more, value in pieces]
    check(study_text, folder, overrides=overrides)


@pytest.mark.parametrize(
    "key", ["defaults", "experiments", "matrix", "comparisons", "references", "profiles", "compute"]
)
@pytest.mark.parametrize(
    "value", ["3", "text", "[1]", "[[]]", "{a: 1}", "{a: [1]}", "null", "[null]", "{a: null}", "{a: {b: {c: 1}}}"]
)
def test_every_top_level_key_of_every_shape(folder, key, value):
    head = "name: toy\ntask: task.py:SPEC\n"
    check(f"{head}{key}: {value}\n", folder)
    if key != "defaults":
        head += "defaults: {data: {source: books}, pipeline: {train: {steps: 1}}}\n"
    check(f"{head}{key}: {value}\n", folder)
