"""Merging: against a plain recursive merge, with marks that follow their values, and nothing changed in place."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from ablab.study.merging import Merger, marked
from ablab.study.problems import Mark

VALUES = st.recursive(
    st.one_of(st.integers(0, 3), st.none(), st.lists(st.integers(0, 3), max_size=2)),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=10,
)
MAPPINGS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


def plain_merge(base, over):
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = plain_merge(merged[key], value) if both else value
    return merged


@given(MAPPINGS, MAPPINGS)
def test_merging_equals_a_plain_recursive_merge(base, over):
    before, after = marked(base, Mark("base", 1, "")), marked(over, Mark("over", 2, ""))
    kept = copy.deepcopy((base, over))
    merger = Merger()
    merged = merger.merge(before, after)
    assert merged == plain_merge(base, over)
    assert (dict(before), dict(after)) == (kept[0], kept[1])
    assert merger.merge(before, after) is merged


@given(MAPPINGS, MAPPINGS)
def test_every_leaf_keeps_the_mark_of_the_side_it_came_from(base, over):
    merged = Merger().merge(marked(base, Mark("base", 1, "")), marked(over, Mark("over", 2, "")))

    def walk(block, base, over):
        for key, value in block.items():
            if isinstance(value, dict) and isinstance(base.get(key), dict) and isinstance(over.get(key), dict):
                walk(value, base[key], over[key])
            else:
                assert block.marks[key].file == ("over" if key in over else "base")

    walk(merged, base, over)


@given(MAPPINGS, MAPPINGS)
def test_what_is_not_touched_is_shared(base, over):
    before = marked(base, Mark("base", 1, ""))
    merged = Merger().merge(before, marked(over, Mark("over", 2, "")))
    for key, value in before.items():
        if key not in over and isinstance(value, dict):
            assert merged[key] is value
