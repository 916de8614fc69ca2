"""What only running can tell: logit scales, what moved, which patterns matched, how many parameters there are."""

from __future__ import annotations

from collections.abc import Callable

from ablab.audit.checks.scale import as_number


def test_scales_that_differ_and_scales_that_match(bench: Callable) -> None:
    lab = bench()
    lab.probe("A", {"logits.scale": 0.99})
    lab.probe("B", {"logits.scale": 0.9})
    assert lab.findings("initial-logit-scale-differs") == []
    lab.finish("B", facts={"logits.scale": 0.21})
    found = lab.findings("initial-logit-scale-differs")
    assert found[0].evidence["scales"] == {"A": 0.99, "B": 0.21}
    assert found[0].evidence["sources"] == {"A": "probe", "B": "result"}


def test_a_scale_by_layer_is_averaged() -> None:
    assert as_number([1.0, 3.0]) == as_number({"0": 1.0, "1": 3.0}) == as_number(2) == 2.0
    assert as_number(None) is as_number([]) is as_number(True) is None


def test_what_should_move_and_does_not_and_the_reverse(bench: Callable) -> None:
    lab = bench()
    sound = {"moved.still": [], "moved.frozen": [], "parameters.trained": 10}
    for name in ("A", "B", "blind"):
        lab.probe(name, sound)
    ids = {each.id for each in lab.findings()}
    assert not ids & {"parameters-moved", "trained-parameters-still", "frozen-parameters-moved", "nothing-trains"}
    lab.finish("A", facts={"moved.still": ["head.weight"]})
    lab.finish("B", facts={"moved.frozen": ["query.weight"], "parameters.trained": 0})
    assert [each.subjects for each in lab.findings("trained-parameters-still")] == [("A",)]
    assert [each.severity for each in lab.findings("frozen-parameters-moved")] == ["error"]
    assert [each.subjects for each in lab.findings("nothing-trains")] == [("B",)]


GROUPS = """
experiments:
  A: {pipeline: {train: {optimizer: {groups: [{pattern: 'block*', frozen: true}, {pattern: wi, learning_rate: 0.1}]}}}}
"""


def test_a_pattern_that_matches_nothing(bench: Callable) -> None:
    lab = bench(GROUPS)
    assert [each.checked for each in lab.findings("pattern-matches-nothing")] == [False]
    lab.probe("A", {"parameters.groups": {"block*": {"total": 5}, "(no pattern)": {"total": 1}}})
    found = lab.findings("pattern-matches-nothing")
    assert [each.severity for each in found] == ["error"] and found[0].evidence == {"patterns": ["wi"]}
    lab.finish("A", facts={"parameters.groups": {"block*": {"total": 5}, "wi": {"total": 1}}})
    assert lab.findings("pattern-matches-nothing") == []


def test_sizes_that_differ(bench: Callable) -> None:
    lab = bench()
    lab.probe("A", {"parameters.total": 1000})
    lab.probe("B", {"parameters.total": 1005})
    assert lab.findings("parameter-count-differs") == []
    lab.finish("B", facts={"parameters.total": 1500})
    assert [each.severity for each in lab.findings("parameter-count-differs")] == ["note"]
