"""Small real data sets and vocabularies that ship with the package, each with its source, licence and checksums.

A set is a folder with `SOURCE.json` ({"source", "licence", "files": {name: sha256}}), the licence text and the files
themselves, xz-compressed where that helps. What the files mean is `ablab.data`'s.

- austen: six novels, one file a novel; public domain
- wordnet: glosses of WordNet 3.0, one synset a line; WordNet licence
- emoji: two drawings each of 1,391 things, 48 x 48 pixels, with names in English and Korean; Apache-2.0, CC-BY-4.0, MIT
- gpt2: vocabulary and merges of GPT-2's byte-level BPE; MIT
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ablab.contract.failure import ConfigError, DataError

_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundled set: where it comes from, under which licence, and the sha256 of each of its files by name."""

    name: str
    source: str
    licence: str
    files: dict[str, str]


def names() -> tuple[str, ...]:
    """Return the names of all bundled sets."""
    return tuple(sorted(path.parent.name for path in _HERE.glob("*/SOURCE.json")))


def path(name: str) -> Path:
    """Return the folder of a bundled set.

    Raises:
        ConfigError: there is no such set; the message lists those that are.
    """
    if name not in names():
        raise ConfigError(f"no bundled data set {name!r}; there are {', '.join(names())}", name=name)
    return _HERE / name


def describe(name: str) -> Bundle:
    """Return what `SOURCE.json` of a bundled set says.

    Raises:
        ConfigError: there is no such set.
        DataError: the description is damaged.
    """
    file = path(name) / "SOURCE.json"
    try:
        found = json.loads(file.read_bytes())
        return Bundle(name=name, source=found["source"], licence=found["licence"], files=dict(found["files"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged ({error}); install ablab again", file=str(file), row=None) from error


def verify(name: str) -> Bundle:
    """Check every file of a bundled set against its checksum and return its description.

    Raises:
        ConfigError: there is no such set.
        DataError: a file is missing or differs; the message names it.
    """
    bundle = describe(name)
    for file, expected in bundle.files.items():
        where = _HERE / name / file
        try:
            found = hashlib.sha256(where.read_bytes()).hexdigest()
        except FileNotFoundError as error:
            raise DataError(
                f"{where}: missing; it ships with the package: install ablab again", file=str(where), row=None
            ) from error
        if found != expected:
            raise DataError(
                f"{where}: sha256 {found[:12]}, expected {expected[:12]}; the file was changed: install ablab again",
                file=str(where),
                row=None,
            )
    return bundle
