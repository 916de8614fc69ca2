"""Asks a language model to judge, behind any OpenAI-compatible endpoint: retries, a cache, and honest failures.

A judgement that could not be had, or that does not say what it should, is None: missing, never a number. The token is
sent and never written; the cache holds what was said, by a hash of what was asked.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ablab.contract.failure import ConfigError
from ablab.store.lines import append_line, read_lines

Found = TypeVar("Found")
Messages = Sequence[Mapping[str, str]]

#: Answers of a server that another try may change; any other error of 4xx will not.
_PASSING = frozenset({408, 409, 425, 429})
#: Longest wait between two tries, in seconds.
_LONGEST = 30.0


class _Refused(Exception):
    """One try failed; `final` where no other try can help."""

    def __init__(self, reason: str, *, final: bool = False, wait: float | None = None) -> None:
        super().__init__(reason)
        self.final, self.wait = final, wait


@dataclass(kw_only=True)
class Endpoint:
    """A judge behind an address.

    Args:
        url: base address, as https://api.openai.com/v1; /chat/completions is added where it is missing.
        model: model that judges.
        token: bearer token; None sends none (a local server).
        temperature: of its sampling.
        max_tokens: longest judgement.
        attempts: tries of one judgement.
        timeout: seconds a try may take.
        pause: seconds before the second try; doubled before each further one.
        cache: file of judgements, read and appended to; None keeps none.
    """

    url: str
    model: str
    token: str | None = field(default=None, repr=False)
    temperature: float = 0.0
    max_tokens: int = 512
    attempts: int = 4
    timeout: float = 60.0
    pause: float = 1.0
    cache: Path | None = None
    failures: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _known: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"judge.url is {self.url!r}; expected an address that starts with http:// or https://")
        if self.cache is not None and self.cache.exists():
            lines = read_lines(self.cache, problems=[])
            self._known = {str(line["key"]): str(line["text"]) for line in lines if "key" in line and "text" in line}

    def ask(self, messages: Messages, *, read: Callable[[str], Found | None]) -> Found | None:
        """Return what `read` makes of the judge's words, or None after the last try; safe to call from threads.

        Args:
            messages: role and content of each, as the chat format has them.
            read: takes the words, returns None where they are no judgement.
        """
        key = self._key(messages)
        with self._lock:
            known = self._known.get(key)
        if known is not None and (found := read(known)) is not None:
            return found
        reason = "nothing asked"
        for attempt in range(self.attempts):
            try:
                text = self._post(messages)
            except _Refused as refused:
                reason = str(refused)
                if refused.final:
                    break
                self._wait(attempt, refused.wait)
                continue
            found = read(text)
            if found is not None:
                self._keep(key, text)
                return found
            reason = "what it said is no judgement"
        with self._lock:
            self.failures[reason] += 1
        return None

    def _wait(self, attempt: int, wanted: float | None) -> None:
        if attempt + 1 < self.attempts:
            time.sleep(min(_LONGEST, wanted if wanted is not None else self.pause * 2**attempt))

    def _key(self, messages: Messages) -> str:
        asked = [self.model, self.temperature, self.max_tokens, [dict(message) for message in messages]]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def _keep(self, key: str, text: str) -> None:
        with self._lock:
            self._known[key] = text
            if self.cache is not None:
                append_line(self.cache, {"key": key, "model": self.model, "text": text})

    def _post(self, messages: Messages) -> str:
        body = {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        base = self.url.rstrip("/")
        address = base if base.endswith("/chat/completions") else f"{base}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                content = json.load(answer)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Refused(f"out of reach ({_reason(error)})") from error
        except ValueError as error:
            raise _Refused("its answer is no JSON") from error
        return _words(content)


def _refusal(error: urllib.error.HTTPError) -> _Refused:
    """Return what a server's error means; its text is not kept, since it may repeat a part of the token."""
    final = 400 <= error.code < 500 and error.code not in _PASSING
    hint = " (check the token)" if error.code in (401, 403) else " (check url and model)" if error.code == 404 else ""
    after = error.headers.get("Retry-After", "") if error.headers else ""
    error.close()
    return _Refused(f"HTTP {error.code}{hint}", final=final, wait=float(after) if after.isdecimal() else None)


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", error)
    return type(inner).__name__ if isinstance(inner, BaseException) else str(inner)


def _words(content: Any) -> str:
    try:
        text = content["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        text = None
    if not isinstance(text, str) or not text.strip():
        raise _Refused("its answer holds no words")
    return text
