"""Addresses of webhooks in a study: whoever knows one can post, so that none is stored or shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ablab.study.schema import Study

#: Stands where an address was. It is one itself, so that a stored text still loads, and it leads nowhere (RFC 2606).
HIDDEN = "https://redacted.invalid/"


def addresses(document: Mapping[str, Any], study: Study | None = None) -> tuple[str, ...]:
    """Return the addresses that stand in a study file, under whatever profile, and in overrides; longest first."""
    profiles = document.get("profiles")
    overlays = profiles.values() if isinstance(profiles, Mapping) else ()
    found = {target.url for target in study.notify if target.url} if study is not None else set()
    for block in (document, *overlays):
        if isinstance(block, Mapping):
            found.update(_written(block.get("notify")))
    return tuple(sorted(found - {HIDDEN}, key=len, reverse=True))


def _written(entries: Any) -> Iterator[str]:
    for entry in entries if isinstance(entries, list | tuple) else ():
        url = entry.get("url") if isinstance(entry, Mapping) else None
        if isinstance(url, str) and url:
            yield url


def without_addresses(text: str, known: Iterable[str]) -> str:
    """Return a text without these addresses."""
    for address in known:
        text = text.replace(address, HIDDEN)
    return text
