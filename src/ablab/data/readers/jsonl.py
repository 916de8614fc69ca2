"""JSONL: one JSON object a line, the text in one of its fields. Blank lines are skipped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from ablab.data.documents import Document, check_text, corrupt, nearest_fields
from ablab.data.readers.opening import read_lines


def read_jsonl(path: str | os.PathLike[str], *, field: str = "text") -> Iterator[Document]:
    """Yield the texts of a JSONL file.

    Raises:
        DataError: the file is missing; a line is no JSON object; its field is missing, null or no string.
    """
    name = os.fspath(path)
    for row, line in read_lines(path):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            corrupt(name, row, f"not JSON ({error.msg} at character {error.colno})", "mend or remove the line")
        except RecursionError:
            corrupt(name, row, "JSON nested too deeply", "mend or remove the line")
        if not isinstance(value, dict):
            corrupt(name, row, f"a JSON {type(value).__name__}, expected an object with the field {field!r}")
        if field not in value:
            corrupt(name, row, f"no field {field!r}; {nearest_fields(field, value)}", "set text_field or mend the line")
        yield Document(check_text(value[field], file=name, row=row, field=field), name, row)
