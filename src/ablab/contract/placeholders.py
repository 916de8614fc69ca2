"""Placeholders in the texts of a command: `{name}`, `{name?text}`, and `{{...}}` for braces that are meant.

Finds them and fills them in; which names there are is `ablab.contract.command`'s.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

#: Names that mean something by themselves, with what they become.
BUILT_IN: Mapping[str, str] = {
    "seed": "the run's seed",
    "output": "folder of the run's artifacts",
    "device": "cpu or cuda",
    "study": "folder of the study file",
}
#: Names that take another name: {input.train}.
FAMILIES: Mapping[str, str] = {
    "input": "artifacts of a stage it needs",
    "checkpoint": "checkpoint of a stage it needs",
    "bundled": "folder of a bundled data set",
    "revision": "locked revision of a model or data set of the hub",
}

_NAME = r"[A-Za-z_][\w.\-+=@/:]*"
_PLACEHOLDER = re.compile(rf"\{{\{{(?P<braces>[^{{}}]*)\}}\}}|\{{(?P<name>{_NAME})(?:\?(?P<text>[^{{}}]*))?\}}")


class Placeholder(NamedTuple):
    """A placeholder: its name, and for `{name?text}` the text that stands there when the value is true."""

    name: str
    text: str | None

    @property
    def family(self) -> str | None:
        """`input` of {input.train}; None for a name of its own."""
        first, dot, rest = self.name.partition(".")
        return first if dot and rest and first in FAMILIES else None

    @property
    def member(self) -> str:
        """`train` of {input.train}."""
        return self.name.partition(".")[2]


def find(texts: Iterable[str]) -> list[Placeholder]:
    """Return the placeholders of some texts, each once, in the order they stand."""
    found = [
        Placeholder(match["name"], match["text"])
        for text in texts
        for match in _PLACEHOLDER.finditer(text)
        if match["name"]
    ]
    return list(dict.fromkeys(found))


def fill(text: str, value_of: Callable[[str], Any], *, quote: bool = False) -> str:
    """Return a text with its placeholders filled in.

    Args:
        text: the text.
        value_of: returns the value of a name; KeyError is passed on.
        quote: quote values for a shell.
    """

    def replace(match: re.Match[str]) -> str:
        if not match["name"]:
            return "{" + match["braces"] + "}"
        value = value_of(match["name"])
        if match["text"] is not None:
            return match["text"] if value else ""
        return shlex.quote(plain(value)) if quote else plain(value)

    return _PLACEHOLDER.sub(replace, text)


def fill_all(items: Iterable[str], value_of: Callable[[str], Any]) -> list[str]:
    """Return arguments with their placeholders filled in; an argument that is `{name?text}` alone may vanish."""
    filled = []
    for item in items:
        match = _PLACEHOLDER.fullmatch(item)
        vanishes = match is not None and bool(match["name"]) and match["text"] is not None
        if not (vanishes and not fill(item, value_of)):
            filled.append(fill(item, value_of))
    return filled


def plain(value: Any) -> str:
    """Return a value as an argument: true, false, null, numbers as Python writes them, text as it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
