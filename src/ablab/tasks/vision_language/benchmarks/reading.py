"""What the readers of all benchmarks share: rows of files or of the hub, pictures, and the usual instructions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

from ablab.contract.failure import ConfigError
from ablab.data.images import ImageSource
from ablab.data.readers.opening import open_bytes
from ablab.data.readers.records import Record, hub_records, read_jsonl, read_records
from ablab.metrics.choice import LETTERS
from ablab.tasks.vision_language.benchmarks.protocol import Files, Picture

#: Instructions of LLaVA-1.5's evaluation, and the Korean one of NCSOFT's benchmarks.
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
LETTER_KO = "\n주어진 선택지 중 해당 옵션의 문자로 바로 답하세요."

#: Longest text of a TSV's image column that is another row's index rather than an image in base64.
_LONGEST_INDEX = 64
_EMPTY = frozenset({"", "nan", "none", "null"})


def rows(files: Files, *, inside: str | None = None, split: str = "test") -> Iterator[Record]:
    """Yield the rows of a benchmark's questions, of its file or of the hub.

    Args:
        files: where they are.
        inside: member of a JSON object that holds them.
        split: split of the hub, where the study names none.
    """
    if files.hub is not None:
        yield from hub_records(
            files.hub,
            split=files.split or split,
            subset=files.subset,
            revision=files.revision,
            images=files.pictures,
        )
        return
    yield from read_records(questions_of(files), inside=inside)


def read_lines_of(path: Path) -> Iterator[Record]:
    """Yield the rows of a JSONL file that is called .json, as several benchmarks name theirs; or of a true JSON."""
    with open_bytes(path) as file:
        first = file.readline().strip()
    yield from read_jsonl(path) if first.startswith(b"{") and first.endswith(b"}") else read_records(path)


def questions_of(files: Files) -> Path:
    """Return the path of the questions.

    Raises:
        ConfigError: the benchmark is asked for from the hub, where only its files are read.
    """
    if files.questions is None:
        raise ConfigError(f"{files.hub}: this benchmark is read from its official files; give `questions`")
    return files.questions


class Gallery:
    """Pictures of a benchmark's rows: names in a folder or tar file, encoded bytes, base64, or another row's index."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._seen: dict[str, bytes] = {}

    @cached_property
    def _source(self) -> ImageSource:
        if self._files.images is not None:
            return ImageSource(self._files.images)
        questions = questions_of(self._files)
        return ImageSource(questions if questions.is_dir() else questions.parent)

    def named(self, name: str) -> tuple[Picture, ...]:
        """Return the picture of a name."""
        return (Picture(name=name, source=self._source),) if self._files.pictures else ()

    def of(self, record: Record, *columns: str, index: str = "") -> tuple[Picture, ...]:
        """Return the pictures in the first of these columns that is filled; none where none is.

        Args:
            record: the row.
            columns: where they may stand.
            index: the row's own index, by which later rows of a TSV may refer to its picture.
        """
        if not self._files.pictures:
            return ()
        value = record.get(*columns)
        values = value if isinstance(value, list | tuple) else () if value is None else (value,)
        return tuple(self._picture(one, record, index) for one in values)

    def _picture(self, value: Any, record: Record, index: str) -> Picture:
        name = f"{record.file}, row {record.row}"
        if isinstance(value, Mapping):
            data, path = value.get("bytes"), value.get("path")
            return Picture(name=name, data=bytes(data)) if data else self.named(str(path))[0]
        if isinstance(value, bytes):
            return Picture(name=name, data=value)
        text = str(value)
        if text in self._seen:
            return Picture(name=name, data=self._seen[text])
        if len(text) <= _LONGEST_INDEX or "." in text[-6:]:
            if index and text.isdecimal():
                record.refuse(f"its picture is that of row {text}, which does not come before it")
            return self.named(text)[0]
        try:
            data = base64.b64decode(text, validate=False)
        except (binascii.Error, ValueError) as error:
            record.refuse(f"its picture is no base64 ({error})", "get the file again")
        if index:
            self._seen[index] = data
        return Picture(name=name, data=data)


def filled(value: Any) -> bool:
    """Tell whether a cell of a table holds something; "nan" is what tables write for nothing."""
    return value is not None and str(value).strip().lower() not in _EMPTY and value == value


def stated(value: Any) -> bool:
    """Tell whether a cell holds an answer or an option: as `filled`, but the word "None" is one."""
    return filled(value) or (isinstance(value, str) and value.strip().lower() == "none")


def lettered(choices: tuple[str, ...], *, mark: str = ". ") -> str:
    """Return the options one a line, "A. cat"."""
    return "\n".join(f"{letter}{mark}{choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def options_of(record: Record, *, letters: str = LETTERS[:6]) -> tuple[str, ...]:
    """Return the options in the columns A, B, C, ... of a table (or choice_a, ...), up to the first that is empty.

    "None" is an option; standing in several columns it is what some tables write for nothing.
    """
    values = [record.get(letter, f"choice_{letter.lower()}") for letter in letters]
    nothing = sum(stated(value) and not filled(value) for value in values) > 1
    found = takewhile(filled if nothing else stated, values)
    return tuple(str(value).strip() for value in found)


def right_letter(record: Record, options: tuple[str, ...]) -> str:
    """Return the letter of the right option in the column `answer`, "" where the split withholds it.

    Raises:
        DataError: there are no options, or the answer is no letter of one.
    """
    answer = record.get("answer")
    letter = str(answer).strip().upper() if filled(answer) else ""
    if not options or (letter and letter not in tuple(LETTERS[: len(options)])):
        record.refuse(f"its answer is {letter!r}, of {len(options)} options")
    return letter


def texts(value: Any) -> tuple[str, ...]:
    """Return accepted answers as texts: of a text, a list, or a list of objects with an `answer`."""
    values = value if isinstance(value, list | tuple) else () if value is None else (value,)
    return tuple(str(one["answer"] if isinstance(one, Mapping) else one) for one in values)
