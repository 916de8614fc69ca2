"""Numbers from elsewhere that were imported: `references.jsonl` of a study's folder, one import a line.

They stand beside measured numbers and are never mixed with them: nothing here is read by the analysis. An import is
one line, so that it is there whole or not at all; importing again under the same source replaces what that source
gave before. References written in the study file itself are the study's (`ablab.study.schema.References`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablab.store.lines import append_line, read_lines
from ablab.store.redact import redact


@dataclass(frozen=True, kw_only=True)
class Imported:
    """One number from elsewhere.

    Args:
        source: where it comes from, as people cite it.
        file: name of the file it was read from.
        row: its line or row there, from 1; None where rows mean nothing.
        text: the cell as it stood there ("54.29 (best val)").
        time: Unix time of the import.
    """

    experiment: str
    metric: str
    value: float
    source: str
    file: str = ""
    row: int | None = None
    text: str = ""
    time: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def references_path(folder: Path) -> Path:
    """Return the file of imported references of a study's folder (`Store.study_folder`)."""
    return folder / "references.jsonl"


def append_references(
    folder: Path,
    entries: Iterable[Imported],
    *,
    source: str,
    file: str = "",
    digest: str = "",
    now: float | None = None,
) -> list[Imported]:
    """Write an import and return its entries as they will be read; an empty one takes back what the source gave.

    Args:
        folder: the study's folder.
        entries: the numbers; their own source, file and time are replaced by those given here.
        source: where they come from.
        file: name of the file they were read from.
        digest: its SHA-256.
        now: Unix time.

    Raises:
        DiskFullError: no space is left; nothing was written.
    """
    line = {
        "time": time.time() if now is None else now,
        "source": redact(source),
        "file": file,
        "sha256": digest,
        "entries": [
            {"experiment": e.experiment, "metric": e.metric, "value": e.value, "row": e.row, "text": redact(e.text)}
            for e in entries
        ],
    }
    append_line(references_path(folder), line, sync=True)
    return _entries(line)


def read_references(folder: Path, *, problems: list[str] | None = None) -> list[Imported]:
    """Return the imported references of a study: of every source its newest import, oldest source first.

    Args:
        folder: the study's folder.
        problems: when given, a line that is no import is skipped and described here instead of raising.

    Raises:
        CorruptFile: a line that is no JSON object; the message names file and line.
    """
    newest: dict[str, Mapping[str, Any]] = {}
    for line in read_lines(references_path(folder), problems=problems):
        source = line.get("source")
        if isinstance(source, str) and isinstance(line.get("entries"), list):
            newest[source] = line
    return [entry for line in newest.values() for entry in _entries(line)]


def _entries(line: Mapping[str, Any]) -> list[Imported]:
    found = []
    for entry in line["entries"]:
        value = entry.get("value") if isinstance(entry, Mapping) else None
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        row = entry.get("row")
        found.append(
            Imported(
                experiment=str(entry.get("experiment", "")),
                metric=str(entry.get("metric", "")),
                value=float(value),
                source=str(line["source"]),
                file=str(line.get("file") or ""),
                row=row if isinstance(row, int) else None,
                text=str(entry.get("text") or ""),
                time=float(line.get("time") or 0.0),
            )
        )
    return found
