"""What a study expects of the models and data it reads, written down before anything is downloaded.

`ablab fetch` holds it against what is found (`ablab.store.fetch`); nothing of it enters a key.
"""

from __future__ import annotations

from typing import Literal

from ablab.contract.base import Strict, setting
from ablab.contract.sizes import Bytes


class Expected(Strict):
    """One entry of a study's checklist: a model or a data set, and its size as the study's author knows it."""

    name: str = setting(..., "Hub id, path, or name of a bundled set.", keyed=False, min_length=1)
    kind: Literal["dataset", "model", "file", "folder", "bundled"] = setting(
        "dataset", "dataset or model of the hub, file, folder, or bundled.", keyed=False
    )
    rows: int | None = setting(None, "Rows of all its tables together.", ge=0, keyed=False)
    bytes: Bytes | None = setting(None, "Bytes of all its files; 16.2 GB is understood.", ge=0, keyed=False)
    tolerance: float = setting(0.02, "Relative distance of rows and bytes that still agrees.", ge=0, keyed=False)
    revision: str | None = setting(None, "Hub revision that was counted.", keyed=False)
    gated: bool = setting(False, "The hub asks for a licence and a token.", keyed=False)
    purpose: str = setting("", "What the study reads it for.", keyed=False)
