"""The language of a report: messages from the catalogue, dates and numbers as the language writes them.

Messages are written in English where they are used, `t("{done} of {all} runs done", done=3, all=9)`; the catalogues
lie in `locale/<language>/LC_MESSAGES/report.po`, and `python -m ablab.report.catalogue` brings them up to date. Text
that comes from a study, a log or an audit is passed as a value and never translated.
"""

from __future__ import annotations

import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ablab.contract import units
from ablab.contract.failure import ConfigError

#: Languages a report can be written in, by their code; each in its own words.
LANGUAGES = {"en": "English", "ko": "한국어", "zh": "中文"}
#: Where the catalogues are.
CATALOGUES = Path(__file__).parent / "locale"
DOMAIN = "report"
#: Locale of the dates and numbers of each language.
_LOCALES = {"en": "en_GB", "ko": "ko_KR", "zh": "zh_Hans_CN"}


class Translator:
    """Says messages, numbers and dates in one language; call it with an English message of the catalogue.

    Args:
        language: one of `LANGUAGES`.

    Raises:
        ConfigError: a language there is no catalogue for.
    """

    def __init__(self, language: str = "en") -> None:
        if language not in LANGUAGES:
            known = ", ".join(f"{code} ({name})" for code, name in LANGUAGES.items())
            raise ConfigError(f"no report can be written in {language!r}; languages: {known}")
        self.language = language

    @cached_property
    def _catalogue(self) -> Any:
        if self.language == "en":
            return None
        from babel.support import Translations

        return Translations.load(CATALOGUES, [self.language], DOMAIN)

    def __call__(self, message: str, /, **values: object) -> str:
        """Return a message with its `{names}` filled in; one the catalogue does not have stays as it is."""
        text = message if self._catalogue is None or not message else str(self._catalogue.ugettext(message))
        return text.format(**values) if values else text

    def n(self, one: str, many: str, count: int, /, **values: object) -> str:
        """Return the message for this many; `{n}` is the count."""
        if self._catalogue is None:
            text = one if count == 1 else many
        else:
            text = str(self._catalogue.ungettext(one, many, count))
        return text.format(n=self.count(count), **values)

    def list(self, items: list[str] | tuple[str, ...]) -> str:
        """Join names as the language does."""
        return ("、" if self.language == "zh" else ", ").join(items)

    def when(self, seconds: float | None, *, with_seconds: bool = False) -> str:
        """Return a Unix time as local date and time; an em dash when unknown."""
        if seconds is None:
            return "—"
        from babel.dates import format_skeleton

        moment = datetime.datetime.fromtimestamp(seconds).astimezone()
        day = format_skeleton("yMMMd", moment, locale=self._locale)
        return f"{day} {format_skeleton('Hms' if with_seconds else 'Hm', moment, locale=self._locale)}"

    def count(self, value: int) -> str:
        """Return a whole number with its thousands grouped."""
        return self._local(f"{value:,}")

    def figure(self, value: float | None, *, digits: int = 4) -> str:
        """Return a number with `digits` significant digits (see `units.figure`)."""
        return self._local(units.figure(value, digits=digits))

    def signed(self, value: float, *, digits: int = 3) -> str:
        """Return a number with its sign."""
        text = self.figure(abs(value), digits=digits)
        return text if value == 0 else f"{'−' if value < 0 else '+'}{text}"

    def percent(self, share: float | None, *, digits: int = 0) -> str:
        """Return a share as percent."""
        return self._local(units.percent(share, digits=digits))

    @cached_property
    def _locale(self) -> str:
        return _LOCALES[self.language]

    @cached_property
    def _marks(self) -> dict[int, str]:
        """Characters between English and the language's decimal and group marks; empty where they are the same."""
        if self.language == "en":
            return {}
        from babel.numbers import get_decimal_symbol, get_group_symbol

        found = {".": str(get_decimal_symbol(self._locale)), ",": str(get_group_symbol(self._locale))}
        return {ord(ours): theirs for ours, theirs in found.items() if ours != theirs}

    def _local(self, text: str) -> str:
        text = f"−{text[1:]}" if text.startswith("-") else text
        return text.translate(self._marks) if self._marks else text


def mark(message: str) -> str:
    """Mark a message for the catalogue where it is written down; it is translated where it is shown."""
    return message


def translator(language: str = "en") -> Translator:
    """Return the translator of a language."""
    return Translator(language)
