"""Sizes as a study writes them: bytes, or a number with its unit."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_SIZE = re.compile(r"([\d.]+)\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_UNITS = {"B": 1} | {
    f"{letter}{suffix}": base**power
    for suffix, base in (("B", 1000), ("iB", 1024))
    for power, letter in enumerate("KMGT", 1)
}


def bytes_of(value: Any) -> Any:
    """Return a size that is written with its unit (16.2 GB) in bytes; what is no text stays as it is.

    Raises:
        ValueError: a text that is no size.
    """
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r} is no size; write a number of bytes, or 512 MB, 16.2 GB, 1.5 GiB")
    return round(float(found[1]) * _UNITS[found[2].replace("k", "K")])


#: Bytes; in a study also `512 MB`, `16.2 GB`, `1.5 GiB`.
Bytes = Annotated[int, BeforeValidator(bytes_of, json_schema_input_type=int | str)]
