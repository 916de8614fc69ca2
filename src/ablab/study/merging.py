"""Merges blocks of a study: mappings merge, scalars and lists replace; every value keeps the mark it came with.

Nothing is ever changed in place: unchanged parts are shared, and equal merges give the same object, so that later
files of this room can work once for each distinct block, however many experiments share it.
"""

from __future__ import annotations

from typing import Any

from ablab.study.problems import Mark
from ablab.study.yaml12 import Block, Items


class Merger:
    """Deep merge with a memory: the same two blocks merge once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Block, Block, Block]] = {}

    def merge(self, base: Block, over: Block) -> Block:
        """Return `base` with `over` on top."""
        if not base:
            return over
        if not over:
            return base
        known = self._known.get((id(base), id(over)))
        if known is not None:
            return known[0]
        if over.keys() <= base.keys():
            merged = Block(base, dict(base.marks))
        else:
            merged = Block({key: base.get(key) for key in _order(base, over)}, dict(base.marks))
        for key, value in over.items():
            below = base.get(key)
            if isinstance(value, Block) and isinstance(below, Block):
                merged[key] = self.merge(below, value)
                if not value:
                    continue
            else:
                merged[key] = value
            merged.marks[key] = over.marks[key]
        self._known[id(base), id(over)] = (merged, base, over)
        return merged


def _order(base: Block, over: Block) -> list[str]:
    """Return the keys of a merge: those of `base`, each new one after the key it was written after.

    So a stage that a study writes after `train` stands before the stages that the task's own pipeline has after it.
    """
    order = list(base)
    written = list(over)
    for position, key in enumerate(written):
        if key in base:
            continue
        after = next((known for known in written[position + 1 :] if known in base), None)
        if position:
            order.insert(order.index(written[position - 1]) + 1, key)
        elif after is not None:
            order.insert(order.index(after), key)
        else:
            order.append(key)
    return order


def replaced(block: Block, key: str, value: Any, mark: Mark) -> Block:
    """Return a block with one key set."""
    changed = Block(dict(block), dict(block.marks))
    changed[key] = value
    changed.marks[key] = mark
    return changed


def without(block: Block, keys: frozenset[str]) -> Block:
    """Return a block without some keys; the same block where it has none of them."""
    if keys.isdisjoint(block):
        return block
    return Block(
        {key: value for key, value in block.items() if key not in keys},
        {key: mark for key, mark in block.marks.items() if key not in keys},
    )


def nested(path: list[str], value: Any, mark: Mark) -> Block:
    """Return the block that sets one value at a path of keys."""
    for key in reversed(path):
        value = Block({key: value}, {key: mark})
    if not isinstance(value, Block):
        raise ValueError("a path needs at least one key")
    return value


def marked(value: Any, mark: Mark) -> Any:
    """Return plain dictionaries and lists as blocks that all stand at `mark` (with their own paths)."""
    if isinstance(value, (Block, Items)):
        return value
    if isinstance(value, dict):
        marks = {str(key): mark.child(str(key)) for key in value}
        return Block({str(key): marked(item, marks[str(key)]) for key, item in value.items()}, marks)
    if isinstance(value, (list, tuple)):
        places = [mark.child(index) for index in range(len(value))]
        return Items([marked(item, place) for item, place in zip(value, places, strict=True)], places)
    return value
