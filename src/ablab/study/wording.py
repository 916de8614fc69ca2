"""Words pydantic's errors as the ends of sentences, and refuses the conversions that pydantic makes silently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ablab.study.problems import Mark, Problems, shown
from ablab.study.yaml12 import Block, Items

#: Words that pydantic would take for a truth value; in a study file they are text.
_TRUTH = frozenset(("yes", "no", "on", "off", "true", "false", "t", "f", "y", "n", "1", "0"))


def sentence(error: Mapping[str, Any]) -> str:
    """Return what a rule between fields says, in the words of the model that raised it."""
    cause = error.get("ctx", {}).get("error")
    return str(cause) if cause else str(error["msg"]).partition(", ")[2] or str(error["msg"])


_EXPECTED: dict[str, str] = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_sub_type": "text",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "iterable_type": "a list",
    "none_required": "null",
    "path_type": "a path",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "string_pattern_mismatch": "text like {pattern}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "union_tag_invalid": "one of {expected_tags} as {discriminator}",
    "union_tag_not_found": "a mapping with {discriminator}",
}


def expected(error: Mapping[str, Any]) -> str:
    """Return what was expected, as the end of a sentence."""
    template = _EXPECTED.get(error["type"])
    if template is not None:
        values = {key: _plain(value) for key, value in error.get("ctx", {}).items()}
        return template.format_map(values).replace("'", "")
    text = str(error["msg"])
    return text.removeprefix("Input should be ").removeprefix("Value should be ")


def choices(error: Mapping[str, Any]) -> list[str]:
    """Return the valid words where one of several was expected."""
    if error["type"] not in ("literal_error", "enum"):
        return []
    return re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def check_types(raw: Any, typed: Any, mark: Mark, problems: Problems) -> None:
    """Refuse what pydantic converts silently: text to a number or truth value, a truth value to a number.

    YAML 1.2 has told text from numbers already; `"3"` and `yes` were written as text.
    """
    if isinstance(raw, Block):
        for key, value in raw.items():
            inner = typed.get(key) if isinstance(typed, Mapping) else getattr(typed, key, None)
            if type(value) is not type(inner):
                check_types(value, inner, raw.marks[key], problems)
        return
    if isinstance(raw, Items) and isinstance(typed, (list, tuple)) and len(raw) == len(typed):
        for value, inner, place in zip(raw, typed, raw.marks, strict=True):
            check_types(value, inner, place, problems)
        return
    if isinstance(typed, bool):
        if not isinstance(raw, bool) and (not isinstance(raw, str) or raw.lower() in _TRUTH):
            problems.add(mark, f"expected true or false, found {shown(raw)}")
    elif isinstance(typed, (int, float)) and (isinstance(raw, bool) or (isinstance(raw, str) and _is_number(raw))):
        problems.add(mark, f"expected a number, found {shown(raw)}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
