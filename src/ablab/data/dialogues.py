"""Dialogues with summaries: read from CSV, JSONL and hub sets, cleaned, divided, and written once for all arms.

A row is a dialogue (turns separated by newlines), any number of reference summaries (none in a set to hand in), a
topic and an id. What a tokenizer makes of it is the task's; how rows become batches is `ablab.data.bucketing`'s.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ablab.contract.failure import ConfigError, DataError
from ablab.data.division import Division
from ablab.data.documents import check_text, corrupt, nearest_fields
from ablab.data.readers.opening import format_suffix, read_lines

Rule = Literal["whitespace", "noise", "filler"]
SPLITS = ("train", "val", "test", "submission", "pretraining")
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """A dialogue; `summaries` is empty where none is known, `file` and `row` say where it was read."""

    id: str
    dialogue: str
    summaries: tuple[str, ...] = ()
    topic: str = ""
    file: str = ""
    row: int = 0


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Names of columns. A summary column may hold one text or a list of texts; `id` and `topic` may be missing."""

    id: str = "fname"
    dialogue: str = "dialogue"
    summaries: tuple[str, ...] = ("summary",)
    topic: str = "topic"


def read_dialogues(path: str | Path, *, fields: Fields, summaries: bool = True) -> Iterator[Dialogue]:
    """Yield the rows of a CSV or JSONL file.

    Args:
        path: .csv or .jsonl, compressed or not.
        fields: names of the columns.
        summaries: whether every row needs a summary; a set to hand in has none.

    Raises:
        DataError: the file is missing or no table, a column is missing, a dialogue is empty; names file and row.
    """
    kind = format_suffix(path)
    if kind == ".csv":
        rows = _csv_rows(path)
    elif kind in {".jsonl", ".ndjson"}:
        rows = _jsonl_rows(path)
    else:
        corrupt(path, None, f"its ending {kind or '(none)'} says no format of dialogues", "use .csv or .jsonl")
    for row, values in rows:
        yield dialogue_of(values, file=str(path), row=row, fields=fields, summaries=summaries)


def _csv_rows(path: str | Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    text = io.StringIO("".join(line for _, line in read_lines(path)), newline="")
    reader = csv.DictReader(text, strict=True)
    try:
        for row in reader:
            if None in row:
                corrupt(path, reader.line_num, "more values than columns", "quote texts that hold commas")
            yield reader.line_num, {name: value for name, value in row.items() if value is not None}
    except csv.Error as error:
        corrupt(path, reader.line_num, f"not CSV ({error})", "quote texts that hold newlines or commas")


def _jsonl_rows(path: str | Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for row, line in read_lines(path):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            corrupt(path, row, f"not JSON ({error.msg} at character {error.colno})", "mend or remove the line")
        if not isinstance(values, dict):
            corrupt(path, row, f"a JSON {type(values).__name__}, expected an object")
        yield row, values


def dialogue_of(values: Mapping[str, Any], *, file: str, row: int, fields: Fields, summaries: bool = True) -> Dialogue:
    """Return a row of a table as a dialogue; `summaries` says whether it must have one.

    Raises:
        DataError: a column is missing, or a value is no text.
    """
    wanted = (fields.dialogue, *(fields.summaries if summaries else ()))
    for name in wanted:
        if name not in values:
            corrupt(file, row, f"no column {name!r}; {nearest_fields(name, values)}", "set data.fields")
    dialogue = check_text(values[fields.dialogue], file=file, row=row, field=fields.dialogue).strip()
    if not dialogue:
        corrupt(file, row, f"an empty {fields.dialogue!r}")
    found = [text for name in fields.summaries for text in _texts(values.get(name), file=file, row=row, field=name)]
    if summaries and not found:
        corrupt(file, row, f"no summary in {', '.join(fields.summaries)}")
    topic = values.get(fields.topic)
    return Dialogue(
        id=str(values.get(fields.id, row)),
        dialogue=dialogue,
        summaries=tuple(found),
        topic=topic if isinstance(topic, str) else "",
        file=file,
        row=row,
    )


def _texts(value: Any, *, file: str, row: int, field: str) -> list[str]:
    if value is None:
        return []
    several = value if isinstance(value, list | tuple) else [value]
    texts = [check_text(each, file=file, row=row, field=field).strip() for each in several]
    return [text for text in texts if text]


# Cleaning -----------------------------------------------------------------------------------------------------------

_LITERAL_NEWLINE = re.compile(r"\\r\\n|\\n|<br\s*/?>")
_SPACES = re.compile(r"[^\S\n]+")
_AROUND_NEWLINE = re.compile(r" *\n[ \n]*")
#: Laughter and tears in bare letters (ㅋㅋ, ㅠㅠ), repeated punctuation, a character four times or more.
_JAMO = re.compile(r"[ㄱ-ㅎㅏ-ㅣ]+")
_PUNCTUATION = re.compile(r"([!?.,~…;:])[!?.,~…;:]*\1+")
_REPEATED = re.compile(r"([^\W\d_])\1{3,}")
_EMOTICON = re.compile(r"(?<!\w)[:;=xX][-']?[)(DPp](?!\w)|\^\^;*|;;+")
#: Words that carry nothing, where they stand alone before a comma, an ellipsis or at the start of a turn.
_FILLER = re.compile(
    r"(?:(?<=^)|(?<=: )|(?<=[.!?,] ))(?:음+|어+|아+|에+|흠+|으음|저기|그게|um+|uh+|er+m?|hm+|well|you know|i mean)"
    r"(?:[,.…~]+|\.\.\.)\s*",
    re.IGNORECASE | re.MULTILINE,
)


def _whitespace(text: str) -> str:
    text = _LITERAL_NEWLINE.sub("\n", text)
    return _AROUND_NEWLINE.sub("\n", _SPACES.sub(" ", text)).strip()


def _noise(text: str) -> str:
    text = _EMOTICON.sub("", _JAMO.sub("", text))
    return _whitespace(_REPEATED.sub(r"\1\1", _PUNCTUATION.sub(r"\1", text)))


def _filler(text: str) -> str:
    before = None
    while before != text:
        before, text = text, _FILLER.sub("", text)
    return _whitespace(text)


#: What each cleaning rule does to a dialogue; summaries are never touched.
RULES: dict[Rule, Callable[[str], str]] = {"whitespace": _whitespace, "noise": _noise, "filler": _filler}


def clean(text: str, rules: Sequence[Rule]) -> str:
    """Return a dialogue after the rules, in their order; a rule that would leave nothing of it is not applied.

    whitespace: literal "\\n" and <br> become newlines, runs of blanks one space. noise: bare jamo (ㅋㅋ, ㅠㅠ),
    emoticons, repeated punctuation and letters. filler: 음, 어, um, well, ... that stand alone.
    """
    for rule in rules:
        text = RULES[rule](text) or text
    return text


def turns(dialogue: str) -> list[str]:
    """Return the turns of a dialogue: its lines with text."""
    return [line for line in dialogue.split("\n") if line.strip()]


def same_text(dialogue: str) -> str:
    """Return what two dialogues share when they are the same one: letters and digits only, in lower case."""
    return "".join(character for character in dialogue.lower() if character.isalnum())


def ascii_share(texts: Iterable[str]) -> float:
    """Return the share of letters and digits that are ASCII: what a tokenizer keeps that knows only [a-z0-9]."""
    every = kept = 0
    for text in texts:
        found = [character for character in text if character.isalnum()]
        every += len(found)
        kept += sum(character.isascii() for character in found)
    return kept / every if every else 1.0


def overlaps(splits: Mapping[str, Sequence[Dialogue]]) -> dict[str, list[tuple[str, str]]]:
    """Return by "train.val", "train.test", ... the ids of dialogues that stand in both splits (`same_text`)."""
    names = [name for name in SPLITS if name in splits]
    keys = {name: {same_text(row.dialogue): row.id for row in splits[name]} for name in names}
    found: dict[str, list[tuple[str, str]]] = {}
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            shared = [(keys[first][key], keys[second][key]) for key in keys[first] if key in keys[second]]
            if shared:
                found[f"{first}.{second}"] = shared
    return found


def divide(rows: Iterable[Dialogue], *, validation: float, test: float, seed: int) -> dict[str, list[Dialogue]]:
    """Divide rows by the content of their dialogues: equal dialogues always land in one split."""
    division = Division(validation=validation, test=test, seed=seed)
    found: dict[str, list[Dialogue]] = {"train": [], "val": [], "test": []}
    for row in rows:
        found[division.split(same_text(row.dialogue).encode())].append(row)
    return found


# What a prepare stage leaves ----------------------------------------------------------------------------------------


class PreparedDialogues:
    """Dialogues a prepare stage wrote: one JSONL file a split, and a manifest.

    Raises:
        DataError: the folder holds none, or a format this version does not read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{folder}: no prepared dialogues ({error}); run the prepare stage", file=str(folder)
            ) from None
        if self.manifest.get("format") != FORMAT:
            raise DataError(f"{folder}: format {self.manifest.get('format')}, expected {FORMAT}", file=str(folder))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits there are."""
        return tuple(self.manifest["splits"])

    @property
    def tags(self) -> tuple[str, ...]:
        """Tokens that stand for speakers and personal data."""
        return tuple(self.manifest["tags"])

    @property
    def tokenizer(self) -> Path | None:
        """Folder of the tokenizer that was trained on it; None where the checkpoint's own is meant."""
        return self.folder / "tokenizer" if (self.folder / "tokenizer").is_dir() else None

    def rows(self, split: str) -> list[Dialogue]:
        """Return the rows of a split.

        Raises:
            ConfigError: there is no such split; the message lists those there are.
        """
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise ConfigError(f"the prepared dialogues have no split {split!r}; they have {known}")
        path = self.folder / f"{split}.jsonl"
        return [_row(line) for _, line in read_lines(path)]


def _row(line: str) -> Dialogue:
    values = json.loads(line)
    return Dialogue(**{**values, "summaries": tuple(values["summaries"])})


def write_dialogues(
    folder: Path, splits: Mapping[str, Sequence[Dialogue]], *, tags: Sequence[str], facts: Mapping[str, Any]
) -> None:
    """Write splits and manifest into a folder that exists; `facts` go into the manifest as they are."""
    for name, rows in splits.items():
        lines = [json.dumps(asdict(row), ensure_ascii=False) for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    manifest = {"format": FORMAT, "splits": list(splits), "tags": list(tags), **facts}
    (folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
