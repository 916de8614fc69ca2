"""What a study expects of the models and data it reads, written down before anything is downloaded.

`ablab fetch` holds it against what is found (`ablab.store.fetch`); nothing of it enters a key.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import field_validator

from ablab.contract.base import Strict, setting

_SIZE = re.compile(r"([\d.]+)\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_UNITS = {"B": 1} | {
    f"{letter}{suffix}": base**power
    for suffix, base in (("B", 1000), ("iB", 1024))
    for power, letter in enumerate("KMGT", 1)
}


class Expected(Strict):
    """One entry of a study's checklist: a model or a data set, and its size as the study's author knows it."""

    name: str = setting(..., "Hub id, path, or name of a bundled set.", keyed=False, min_length=1)
    kind: Literal["dataset", "model", "file", "folder", "bundled"] = setting(
        "dataset", "dataset or model of the hub, file, folder, or bundled.", keyed=False
    )
    rows: int | None = setting(None, "Rows of all its tables together.", ge=0, keyed=False)
    bytes: int | None = setting(None, "Bytes of all its files; 16.2 GB is understood.", ge=0, keyed=False)
    tolerance: float = setting(0.02, "Relative distance of rows and bytes that still agrees.", ge=0, keyed=False)
    revision: str | None = setting(None, "Hub revision that was counted.", keyed=False)
    gated: bool = setting(False, "The hub asks for a licence and a token.", keyed=False)
    purpose: str = setting("", "What the study reads it for.", keyed=False)

    @field_validator("bytes", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        return bytes_of(value)


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
