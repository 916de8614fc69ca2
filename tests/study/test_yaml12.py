"""Scalars of YAML 1.2, lines, anchors, and text that is no YAML."""

from __future__ import annotations

import math

import pytest

from ablab.study.nodes import read_text
from ablab.study.problems import StudyError
from ablab.study.yaml12 import Block, Items, parse, parse_value, scalar


def value_of(text):
    value, problems, _ = parse(text, file="f.yaml")
    assert not problems, problems
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-1.5e+3", -1500.0), ("+7", 7), ("-0", 0), ("007", 7),
        ("0o17", 15), ("0xFF", 255), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("1_000", "1_000"), ("0b11", "0b11"),
        ("1:30:00", "1:30:00"), ("2024-01-31", "2024-01-31"), ("4h31m", "4h31m"), (".inf", math.inf),
        ("-.INF", -math.inf), ("1e", "1e"), (".", "."), ("-", "-"), ("+", "+"), ("nan", "nan"), ("0x", "0x"),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema_of_yaml_1_2(text, value):
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_quoted_scalars_are_text():
    assert value_of("a: '3'\nb: \"true\"\nc: |\n  12\n") == {"a": "3", "b": "true", "c": "12\n"}


def test_core_tags_are_followed():
    assert value_of("a: !!str 3\nb: !!float 3\nc: !!int 3\n") == {"a": "3", "b": 3.0, "c": 3}


def test_every_value_knows_its_line_and_path():
    value, _, lines = parse("a:\n  b: 1\n  c:\n    - x\n    - d: 2\n", file="f.yaml")
    assert isinstance(value["a"], Block)
    assert value["a"].marks["b"] == ("f.yaml", 2, "a.b")
    assert isinstance(value["a"]["c"], Items)
    assert value["a"]["c"].marks[1] == ("f.yaml", 5, "a.c[1]")
    assert lines["a.c[1].d"] == 5


def test_anchors_and_merge_keys():
    value = value_of("base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\nmany: {<<: [{z: 9}, *b]}\nsame: *b\n")
    assert value["other"] == {"y": 3, "x": 1}
    assert value["many"] == {"z": 9, "x": 1, "y": 2}
    assert value["same"] is value["base"]


def test_a_merged_value_keeps_the_line_of_its_anchor():
    value = value_of("base: &b\n  x: 1\nother:\n  <<: *b\n")
    assert value["other"].marks["x"].line == 2


def test_duplicate_keys_are_told_with_both_lines():
    _, problems, _ = parse("a: 1\nb: 2\na: 3\n", file="f.yaml")
    assert [(problem.line, problem.path) for problem in problems] == [(3, "a")]
    assert "line 1" in problems[0].message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\n\tb: 2\n", 2), ("a: [1,\n2\n", 3), ("a: 1\nb: *x\n", 2), ("a: 1\n---\nb: 2\n", 2), ("a: 'x\n", 2),
        ("a: 1\n b: 2\n", 2), ("a: \x00\n", 1), ("x: 1\na: \x07\n", 2), ("a: @x\n", 1), ("%YAML 1.3\n---\na: 1", 1),
        ("a: &x [*x]\n", 1), ("a: \ud800", 1), ("a: %x", 1), ("{" * 300, 1), ("[" * 50_000 + "]" * 50_000, 1),
        ("a:\n" + "- " * 30_000, 2),
    ],
)  # fmt: skip
def test_text_that_is_no_yaml_is_told_with_its_line(text, line):
    with pytest.raises(StudyError) as caught:
        parse(text, file="f.yaml")
    (problem,) = caught.value.problems
    assert problem.line is not None
    assert abs(problem.line - line) <= 1
    assert problem.message


def test_aliases_that_write_out_to_billions_are_refused():
    text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    text += "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    with pytest.raises(StudyError, match="aliases write out"):
        parse(text, file="f.yaml")
    text = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}, k{i}: *a{i - 1}}}\n" for i in range(1, 40))
    with pytest.raises(StudyError, match="aliases write out"):
        parse(text, file="f.yaml")


@pytest.mark.parametrize("text", ["a: !thing 3", "!map2 {a: 1}", "a: !!int x", "{[1]: 2}", "a: {<<: 3}"])
def test_odd_tags_and_keys_are_problems_not_crashes(text):
    _, problems, _ = parse(text, file="f.yaml")
    assert problems
    assert all(problem.line == 1 for problem in problems)


def test_a_number_of_thousands_of_digits_is_a_problem():
    _, problems, _ = parse(f"a: {'9' * 5000}\n", file="f.yaml")
    assert "too large" in problems[0].message


def test_override_values_follow_the_same_rules():
    assert parse_value("3e-4", origin="override", path="x") == 3e-4
    assert parse_value("[1, no]", origin="override", path="x") == [1, "no"]
    assert parse_value("", origin="override", path="x") is None
    with pytest.raises(StudyError):
        parse_value("[1,", origin="override", path="x")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(StudyError, match="no such file"):
        read_text(tmp_path / "none.yaml")
    with pytest.raises(StudyError, match="folder"):
        read_text(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(StudyError, match="0xe9 is not UTF-8") as caught:
        read_text(tmp_path / "latin.yaml")
    assert caught.value.problems[0].line == 2
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_text(tmp_path / "bom.yaml") == "a: 1\n"
