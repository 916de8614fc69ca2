"""Conversations about images in LLaVA's JSON: reading, checking, and what a row must be.

[{"id": ..., "image": "name.jpg" | ["a.jpg", "b.jpg"], "conversations": [{"from": "human" | "gpt", "value": ...}]}],
as a JSON array or one object a line; `image` may be missing. Files of any size are read piece by piece. How a
conversation becomes tokens is `ablab.data.templates`'s.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ablab.contract.failure import DataError

Role = Literal["user", "assistant", "system"]
#: Where the image stands in a text.
IMAGE = "<image>"
ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says."""

    role: Role
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """Turns, alternating from the user's to the assistant's, perhaps behind a system turn.

    Args:
        id: of its row.
        turns: `<image>` in their texts stands for the next of `images`.
        images: names of pictures.
        language: where the row says it.
        row: number in its file, from 1.
    """

    id: str
    turns: tuple[Turn, ...]
    images: tuple[str, ...] = ()
    language: str = ""
    row: int = 0


def read_rows(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, row) of a JSON array or of JSON lines, without reading the whole file at once.

    Raises:
        DataError: it is neither, or is cut off; the message has file and row.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(64).lstrip(codecs.BOM_UTF8).lstrip()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", file=str(path)) from error
    yield from _array(path) if head.startswith(b"[") else _lines(path)


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("r", encoding="utf-8-sig", errors="strict") as file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, json.loads(line)
        except ValueError as error:
            raise _corrupt(path, number, f"not JSON ({error})") from error


def _array(path: Path) -> Iterator[tuple[int, Any]]:
    decoder = json.JSONDecoder()
    with path.open("r", encoding="utf-8-sig", errors="strict") as file:
        text, place, number, ended = "", 0, 0, False
        text = file.read(_PIECE)
        place = text.index("[") + 1
        while True:
            place = _skip(text, place)
            if place < len(text) and text[place] == "]":
                return
            try:
                row, after = decoder.raw_decode(text, place)
                # A number at the end of a piece may go on in the next.
                complete = after < len(text) or ended
            except ValueError as error:
                if ended:
                    raise _corrupt(path, number + 1, f"not JSON, or the file is cut off ({error})") from error
                complete = False
            if not complete:
                more = file.read(_PIECE)
                text, place, ended = text[place:] + more, 0, not more
                continue
            number += 1
            yield number, row
            place = after


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n,":
        place += 1
    return place


def parse(row: Any, *, file: str, number: int) -> Conversation:
    """Return a row as a conversation.

    As LLaVA does it, turns of the assistant before the first of the user are left out, and the place of a single image
    is moved to the beginning of its turn.

    Raises:
        DataError: what is wrong, with file and row: no turns, an unknown role, two turns of one side in a row, an
            empty answer, no answer at all, or another number of `<image>` than of images.
    """
    if not isinstance(row, dict):
        raise _corrupt(file, number, f"expected an object, found {type(row).__name__}")
    images = _images(row, file, number)
    turns = _turns(row, file, number)
    return Conversation(
        id=str(row.get("id", number)),
        turns=_placed(turns, len(images), file, number),
        images=images,
        language=str(row.get("language", "")),
        row=number,
    )


def _images(row: dict[str, Any], file: str, number: int) -> tuple[str, ...]:
    given = row.get("image")
    if given is None:
        given = row.get("images")
    if given is None or given == "":
        return ()
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise _corrupt(file, number, f"image: expected a name or a list of names, found {given!r}")
    return tuple(names)


def _turns(row: dict[str, Any], file: str, number: int) -> list[Turn]:
    given = row.get("conversations")
    if not isinstance(given, list) or not given:
        raise _corrupt(file, number, "has no conversations")
    turns: list[Turn] = []
    for place, entry in enumerate(given):
        turn = _turn(entry, place, file, number)
        if turn.role == "assistant" and not any(one.role == "user" for one in turns):
            continue
        if turns and turns[-1].role == turn.role:
            raise _corrupt(file, number, f"conversations[{place}]: two turns of the {turn.role} in a row")
        if turn.role == "system" and turns:
            raise _corrupt(file, number, f"conversations[{place}]: a system turn stands first or not at all")
        turns.append(turn)
    if not turns or turns[-1].role != "assistant":
        raise _corrupt(file, number, "does not end with an answer of the assistant")
    return turns


def _turn(entry: Any, place: int, file: str, number: int) -> Turn:
    if not isinstance(entry, dict):
        raise _corrupt(file, number, f"conversations[{place}]: expected an object with from and value")
    role = ROLES.get(str(entry.get("from", entry.get("role"))))
    if role is None:
        found = entry.get("from", entry.get("role"))
        raise _corrupt(file, number, f"conversations[{place}]: unknown role {found!r}; known: {', '.join(ROLES)}")
    text = entry.get("value", entry.get("content"))
    if not isinstance(text, str):
        raise _corrupt(file, number, f"conversations[{place}]: expected text, found {type(text).__name__}")
    if role == "assistant" and not text.strip():
        raise _corrupt(file, number, f"conversations[{place}]: the answer is empty")
    if role == "assistant" and IMAGE in text:
        raise _corrupt(file, number, f"conversations[{place}]: {IMAGE} stands in an answer")
    return Turn(role, text)


def _placed(turns: list[Turn], images: int, file: str, number: int) -> tuple[Turn, ...]:
    """Return the turns with as many places of images as there are images."""
    places = sum(turn.text.count(IMAGE) for turn in turns)
    first = next(i for i, turn in enumerate(turns) if turn.role == "user")
    if images and not places:
        turns[first] = Turn("user", f"{IMAGE}\n" * images + turns[first].text)
    elif images != places:
        raise _corrupt(file, number, f"{places} x {IMAGE} in its text, but {images} images")
    elif images == 1:
        turns = [_moved(turn) for turn in turns]
    return tuple(turns)


def _moved(turn: Turn) -> Turn:
    if IMAGE not in turn.text:
        return turn
    rest = turn.text.replace(IMAGE, "").strip()
    return Turn(turn.role, f"{IMAGE}\n{rest}" if rest else IMAGE)


def _corrupt(file: str | Path, row: int, what: str) -> DataError:
    return DataError(f"{file} row {row}: {what}", file=str(file), row=row)
