"""Templates of output lines: `epoch {step}: loss {train/loss}` as a regular expression over numbers.

Shared by the study, which wants to know the names, and by the worker, which reads the lines.
"""

from __future__ import annotations

import re

#: Name of the step in a template and in a regular expression.
STEP = "step"
#: Name that stands for text which varies and is not read.
ANYTHING = "_"

_FIELD = re.compile(r"\{([^{}]+)\}")
_NUMBER = r"[-+]?(?:\d[\d_,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|NaN|NAN|inf|Inf|INF|infinity|Infinity)"


def names_of_line(template: str) -> tuple[str, ...]:
    """Return the names in a template, the step's among them."""
    return tuple(dict.fromkeys(name for name in _FIELD.findall(template) if name != ANYTHING))


def names_of_regex(pattern: str) -> tuple[str, ...]:
    """Return the named groups of a regular expression."""
    return tuple(re.compile(pattern).groupindex)


def compile_line(template: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """Return the regular expression of a template, found anywhere in a line, and the name of each of its groups.

    Runs of white space match any white space; {_} matches any text.
    """
    parts, names = [], []
    for position, part in enumerate(_FIELD.split(template)):
        if position % 2 == 0:
            parts.append(r"\s+".join(re.escape(piece) for piece in re.split(r"\s+", part)))
        elif part == ANYTHING:
            parts.append(r".*?")
        else:
            parts.append(f"({_NUMBER})")
            names.append(part)
    return re.compile("".join(parts)), tuple(names)


def number(text: str) -> float | None:
    """Return a number as programs print it (thousands marked or not, a per cent sign behind), None for other text."""
    cleaned = text.strip().rstrip("%").replace("_", "")
    try:
        return float(cleaned.replace(",", ""))
    except ValueError:
        return None
