"""Reads YAML into plain values that remember their lines; scalars follow the core schema of YAML 1.2.

PyYAML's C parser composes the tree. Its own scalar rules are those of YAML 1.1 (3e-4 is text, `no` is false), so the
scalars are resolved here. Meaning is left to the other files of this room.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from ablab.study.nodes import CORE, DEPTH, PLAIN, compose
from ablab.study.problems import Mark, Problem, StudyError, join

_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}

#: Values a study may hold once its aliases are written out.
VALUES = 2_000_000

#: Digits of a whole number; more cannot be meant.
DIGITS = 300


class Block(dict[str, Any]):
    """A mapping that remembers where each of its keys was written. Never changed once built."""

    __slots__ = ("marks",)

    def __init__(self, values: dict[str, Any] | None = None, marks: dict[str, Mark] | None = None) -> None:
        super().__init__(values or {})
        self.marks: dict[str, Mark] = marks if marks is not None else {}


class Items(list[Any]):
    """A list that remembers where each of its items was written. Never changed once built."""

    __slots__ = ("marks",)

    def __init__(self, values: list[Any] | None = None, marks: list[Mark] | None = None) -> None:
        super().__init__(values or [])
        self.marks: list[Mark] = marks if marks is not None else []


def parse(text: str, *, file: str) -> tuple[Any, list[Problem], dict[str, int]]:
    """Parse YAML text.

    Returns:
        The value (`Block`, `Items` or a scalar), problems that do not stop the reading (duplicate keys, unknown
        tags), and the line of every path.

    Raises:
        StudyError: when the text is not YAML.
    """
    builder = _Builder(file)
    node = compose(text, file)
    value = None if node is None else builder.build(node, "", 0)
    return value, builder.problems, builder.lines


def parse_value(text: str, *, origin: str, path: str) -> Any:
    """Parse the value of a `key=value` override with the same rules; every mark says `origin` and `path`."""
    try:
        node = compose(text, origin)
    except StudyError as error:
        raise StudyError([_command_line(problem, origin, path) for problem in error.problems]) from None
    builder = _Builder(origin, numbered=False)
    value = None if node is None else builder.build(node, path, 0)
    if builder.problems:
        raise StudyError(builder.problems)
    return value


def scalar(text: str) -> Any:
    """Return the value of a plain scalar by the core schema of YAML 1.2; ValueError for a number without end."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first not in "0123456789+-.":
        return text
    if _INTEGER.match(text):
        if len(text) > DIGITS:
            raise ValueError(f"a number of {len(text)} digits")
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    if _OCTAL.match(text) or _HEXADECIMAL.match(text):
        if len(text) > DIGITS:
            raise ValueError(f"a number of {len(text)} digits")
        return int(text, 0)
    return text


class _Builder:
    """Turns nodes into values. Aliased nodes are built once and shared."""

    def __init__(self, file: str, *, numbered: bool = True) -> None:
        self.file = file
        self.numbered = numbered
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}
        self._built: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()
        self._sizes: dict[int, int] = {}

    def build(self, node: Any, path: str, depth: int) -> Any:
        """Return the value of a node that stands at `path`."""
        return self._sized(node, path, depth)[0]

    def _sized(self, node: Any, path: str, depth: int) -> tuple[Any, int]:
        if type(node) is yaml.ScalarNode:
            return self._scalar(node, path), 1
        known = self._built.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open:
            raise self._stop(node, path, "an alias that contains itself has no end")
        if depth >= DEPTH:
            raise self._stop(node, path, f"nested more than {DEPTH} levels deep")
        self._open.add(id(node))
        builder = self._mapping if type(node) is yaml.MappingNode else self._sequence
        result = builder(node, path, depth)
        if result[1] > VALUES:
            raise self._stop(node, path, f"aliases write out to more than {VALUES} values")
        self._open.discard(id(node))
        self._built[id(node)] = result
        self._sizes[id(result[0])] = result[1]
        return result

    def _mapping(self, node: Any, path: str, depth: int) -> tuple[Any, int]:
        self._check_tag(node, path, "map")
        block, size = Block(), 1
        merged: list[Block] = []
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key == "<<" and key_node.tag == PLAIN:
                merged.extend(self._merged(value_node, path, depth))
                continue
            child = f"{path}.{key}" if path else key
            mark = self._mark(key_node, child)
            if key in block:
                first = block.marks[key].line
                again = f"the key {key!r} is given twice; the first is in line {first}" if self.numbered else "is twice"
                self._problem(mark, again)
                continue
            value, inner = self._sized(value_node, child, depth + 1)
            block[key] = value
            block.marks[key] = mark
            size += inner
        for source in merged:
            for key, value in source.items():
                if key not in block:
                    block[key] = value
                    block.marks[key] = source.marks[key]
            size += self._sizes[id(source)]
        return block, size

    def _sequence(self, node: Any, path: str, depth: int) -> tuple[Any, int]:
        self._check_tag(node, path, "seq")
        items, size = Items(), 1
        for index, child_node in enumerate(node.value):
            child = join(path, index)
            mark = self._mark(child_node, child)
            value, inner = self._sized(child_node, child, depth + 1)
            items.append(value)
            items.marks.append(mark)
            size += inner
        return items, size

    def _merged(self, node: Any, path: str, depth: int) -> Iterator[Block]:
        value = self.build(node, path, depth + 1)
        for source in value if isinstance(value, Items) else [value]:
            if isinstance(source, Block):
                yield source
            else:
                self._problem(self._mark(node, path), "the merge key << takes a mapping or a list of mappings")

    def _key(self, node: Any, path: str) -> str | None:
        if type(node) is not yaml.ScalarNode:
            self._problem(self._mark(node, path), "a key must be a word, not a list or a mapping")
            return None
        if not node.value:
            self._problem(self._mark(node, path), "a key is missing before the colon")
            return None
        return str(node.value)

    def _scalar(self, node: Any, path: str) -> Any:
        tag, text = node.tag, node.value
        if tag == CORE + "str":
            return text
        try:
            value = scalar(text)
        except ValueError as error:
            self._problem(self._mark(node, path), f"{error} is too large")
            return None
        if tag != PLAIN and not _fits(tag, value):
            self._problem(self._mark(node, path), f"{text!r} does not fit its tag {_short(tag)}, or the tag is unknown")
            return None
        return float(value) if tag == CORE + "float" else value

    def _check_tag(self, node: Any, path: str, kind: str) -> None:
        if node.tag != CORE + kind:
            self._problem(self._mark(node, path), f"the tag {_short(node.tag)} is unknown here")

    def _mark(self, node: Any, path: str) -> Mark:
        if not self.numbered:
            return Mark(self.file, None, path)
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        return Mark(self.file, line, path)

    def _problem(self, mark: Mark, message: str) -> None:
        self.problems.append(Problem(file=mark.file, line=mark.line, path=mark.path, message=message))

    def _stop(self, node: Any, path: str, message: str) -> StudyError:
        mark = self._mark(node, path)
        return StudyError([Problem(file=mark.file, line=mark.line, path=mark.path, message=message)])


def _fits(tag: str, value: Any) -> bool:
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}
    wanted = kinds.get(tag.removeprefix(CORE), ())
    return isinstance(value, wanted) and (isinstance(value, bool) == (tag == CORE + "bool"))


def _short(tag: str) -> str:
    return tag.replace(CORE, "!!")


def _command_line(problem: Problem, origin: str, path: str) -> Problem:
    return Problem(file=origin, line=None, path=path, message=problem.message)
