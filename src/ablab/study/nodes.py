"""From a file to a tree of YAML nodes: reading, composing with PyYAML's C parser, and wording what is no YAML.

What the nodes mean is `ablab.study.yaml12`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ablab.study.problems import Problem, StudyError

_Base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

#: Tags of the core schema start so.
CORE = "tag:yaml.org,2002:"

#: Tag of a scalar without quotes and without a tag of its own.
PLAIN = "plain"

#: Levels of nesting a study may have; the composer itself would overflow the stack at some 100,000.
DEPTH = 100


class _Loader(_Base):  # type: ignore[misc]  # PyYAML's C loader has no types
    """Composes nodes and tells plain scalars from quoted ones by their tag."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """Return the tag of a node that has none."""
        if kind is yaml.ScalarNode:
            return PLAIN if implicit[0] else CORE + "str"
        return CORE + ("map" if kind is yaml.MappingNode else "seq")


def read_text(path: Path) -> str:
    """Return the text of a study file; StudyError when it cannot be read or is not UTF-8."""
    file = str(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _error(file, None, "no such file") from None
    except IsADirectoryError:
        raise _error(file, None, "this is a folder; a study is one YAML file") from None
    except OSError as error:
        raise _error(file, None, f"cannot be read: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(file, line, f"byte 0x{data[error.start]:02x} is not UTF-8 text") from None


def compose(text: str, file: str) -> Any:
    """Return the root node, None for an empty text; StudyError for text that is not YAML."""
    try:
        _check_depth(text, file)
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        raise _error(file, line, _syntax_message(error)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _error(file, line, f"the character U+{_code(error):04X} is not allowed in YAML") from None
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise _error(file, line, "half a surrogate pair is not a character") from None
    except yaml.YAMLError as error:
        raise _error(file, None, f"not YAML: {error}") from None


def _check_depth(text: str, file: str) -> None:
    """Refuse nesting that would overflow the composer's stack; counted on events only where it could be."""
    if _depth_bound(text) < 5000:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > DEPTH:
                line = None if event.start_mark is None else event.start_mark.line + 1
                raise _error(file, line, f"nested more than {DEPTH} levels deep")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1


def _depth_bound(text: str) -> int:
    """Return a number that no nesting of the text exceeds, without parsing it."""
    lines = text.splitlines()
    longest = max(map(len, lines), default=0)
    opened = text.count("[") + text.count("{")
    if opened + longest < 5000:
        return opened + longest
    # A line that closes what it opens adds nothing to the next one's depth, unless quotes or a comment hold brackets;
    # what a line closes beyond that is never credited.
    depth, most = 0, 0
    for line in lines:
        opens = line.count("[") + line.count("{")
        if opens:
            plain = not ('"' in line or "'" in line or "#" in line)
            depth += max(0, opens - line.count("]") - line.count("}")) if plain else opens
            most = max(most, opens)
    return depth + most + longest


def _code(error: Any) -> int:
    character = error.character
    return character if isinstance(character, int) else ord(character[:1] or "\0")


def _syntax_message(error: Any) -> str:
    """Word a syntax error of YAML; tabs and unclosed brackets are told as such."""
    problem = str(error.problem or "").strip()
    if "tab" in problem or "cannot start any token" in problem:
        return "not YAML: a tab or a reserved character starts a token here; indent with spaces, quote the text"
    if "undefined alias" in problem:
        return "an alias (*name) without an anchor (&name) before it"
    if "but found another document" in problem:
        return "a second document starts here; a study is one document"
    opened = error.context_mark
    context = f" ({error.context}, line {opened.line + 1})" if error.context and opened is not None else ""
    return f"not YAML: {problem or 'cannot be parsed'}{context}"


def _error(file: str, line: int | None, message: str) -> StudyError:
    return StudyError([Problem(file=file, line=line, path="", message=message)])
