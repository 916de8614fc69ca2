"""The message catalogues of the report: `python -m ablab.report.catalogue` brings them up to date.

It collects every message of this room (calls of `t`, `n` and `mark`, in Python and in templates), adds new ones to
`locale/<language>/LC_MESSAGES/report.po` untranslated, drops those nobody says any more, and compiles `report.mo`.
A test fails while a message lacks its translation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from ablab.report.language import CATALOGUES, DOMAIN, LANGUAGES

#: Where messages are said: this room and what it says of other rooms' codes.
SOURCE = Path(__file__).parent
#: Functions that say a message, and which of their arguments are messages.
KEYWORDS: dict[str, tuple[int, ...] | None] = {"t": None, "n": (1, 2), "mark": None}

#: Lines of a catalogue's head that say nothing, or something else each time.
_DULL = (b"#", *(b'"' + name for name in (b"POT-", b"PO-", b"Report-", b"Last-", b"Language-Team", b"Generated-")))

Message = str | tuple[str, ...]


def messages() -> dict[Message, list[str]]:
    """Return every message (a pair for one that depends on a count) with the files that say it."""
    from babel.messages.extract import extract_from_file

    found: dict[Message, list[str]] = {}
    for path, method in _files():
        for _, message, _, _ in extract_from_file(method, path, keywords=KEYWORDS, options={"encoding": "utf-8"}):
            said = tuple(message) if isinstance(message, list | tuple) else message
            found.setdefault(said, []).append(path.relative_to(SOURCE).as_posix())
    return found


def _files() -> Iterator[tuple[Path, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, "python"
    for path in sorted((SOURCE / "assets").glob("*.html")):
        yield path, "jinja2.ext:babel_extract"


def po_path(language: str) -> Path:
    """Return where the catalogue of a language is written by people."""
    return CATALOGUES / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def read(language: str) -> Any:
    """Return the catalogue of a language as people wrote it; an empty one where there is none yet."""
    from babel.messages.catalog import Catalog
    from babel.messages.pofile import read_po

    path = po_path(language)
    if not path.exists():
        return Catalog(locale=language, domain=DOMAIN)
    with path.open("rb") as stream:
        return read_po(stream, locale=language, domain=DOMAIN)


def update(language: str) -> Any:
    """Return the catalogue of a language with exactly the messages that are said now, translations kept."""
    from babel.messages.catalog import Catalog

    before = read(language)
    now = Catalog(locale=language, domain=DOMAIN, project="Ablab", charset="utf-8", fuzzy=False)
    for message in sorted(messages(), key=lambda each: each if isinstance(each, str) else each[0]):
        key = message if isinstance(message, str) else message[0]
        kept = before.get(key)
        now.add(message, kept.string if kept is not None else None)
    return now


def written(catalogue: Any) -> bytes:
    """Return a catalogue as people read it, without the dates and addresses that every writing would change."""
    from babel.messages.pofile import write_po

    stream = BytesIO()
    write_po(stream, catalogue, width=110)
    return b"".join(line for line in stream.getvalue().splitlines(keepends=True) if not line.startswith(_DULL))


def compiled(catalogue: Any) -> bytes:
    """Return a catalogue as the report reads it."""
    from babel.messages.mofile import write_mo

    stream = BytesIO()
    write_mo(stream, catalogue)
    return stream.getvalue()


def lacking(catalogue: Any) -> list[str]:
    """Return the messages of a catalogue without a sound translation: empty, fuzzy, or with other placeholders."""
    found = []
    for message in catalogue:
        if not message.id:
            continue
        ids = [message.id] if isinstance(message.id, str) else list(message.id)
        strings = [message.string] if isinstance(message.string, str) else list(message.string or [""])
        names = [set(re.findall(r"\{(\w*)\}", text)) for text in (*ids, *strings)]
        # The last id is the whole message: of a pair, the plural, whose count a translation may leave out.
        whole, translated = names[len(ids) - 1], names[len(ids) :]
        sound = all(name <= whole and whole - name <= {"n"} for name in translated)
        if message.fuzzy or not all(strings) or not sound:
            found.append(ids[0])
    return found


def main() -> int:
    """Bring all catalogues up to date; return how many messages lack a translation."""
    missing = 0
    for language in LANGUAGES:
        if language == "en":
            continue
        catalogue = update(language)
        path = po_path(language)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(written(catalogue))
        path.with_suffix(".mo").write_bytes(compiled(catalogue))
        lack = lacking(catalogue)
        missing += len(lack)
        for text in lack:
            print(f"{language}: {text}")
    return missing


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
