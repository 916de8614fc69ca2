"""Posts messages to one webhook: from a thread, in their order, with tries and growing pauses, and never in the way.

An address counts as a secret: no message, line or record names it. What is told, and when, is `notify`'s.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ablab.store.redact import redact

Event = Literal["finished", "failed", "verdict"]
Say = Callable[[str], None]

#: Seconds before the second try; each further pause is twice as long, up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
TRIES = 8
#: Seconds a webhook may take to answer.
TIMEOUT = 10.0
#: Lines of one message; the rest is counted.
MOST_LINES = 20
#: Answers that another try may change.
_PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True, kw_only=True)
class Target:
    """A webhook: its address and what it wants to hear. `name` stands for it wherever it is spoken of."""

    name: str
    url: str = field(repr=False)
    kind: Literal["slack", "json"]
    on: tuple[Event, ...]


@dataclass(frozen=True, kw_only=True)
class Message:
    """Something to tell: one line for people, the rest for machines."""

    event: Event
    text: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class Outlet:
    """Posts messages to one webhook from a thread of its own, which starts with the first message.

    Args:
        target: the webhook.
        head: what every message carries: study, profile.
        say: told, once a message, what could not be delivered.
        pause: seconds before the second try.
        tries: of one message.
    """

    def __init__(
        self, target: Target, *, head: Mapping[str, Any], say: Say, pause: float = FIRST_PAUSE, tries: int = TRIES
    ) -> None:
        self.target = target
        self._head, self._say, self._pause, self._tries = head, say, pause, tries
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing: float | None = None
        self._busy = False

    def put(self, message: Message) -> None:
        """Take a message; returns at once."""
        with self._changed:
            self._waiting.append(message)
            if self._thread is None:
                # A daemon: a webhook that does not answer must not keep the program from ending.
                self._thread = threading.Thread(target=self._work, name=self.target.name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, until: float) -> int:
        """Wait until everything is posted or the monotonic time has come; return the messages that were not."""
        with self._changed:
            self._closing = until
            self._changed.notify_all()
            while self._busy or self._waiting:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return len(self._waiting) + int(self._busy)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closing is not None:
                        return
                    self._changed.wait()
                group = self._next_group()
                self._busy = True
            try:
                self._deliver(group)
            except Exception as error:
                self._say(f"{self.target.name}: {group[0].event} could not be posted: {type(error).__name__}")
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _next_group(self) -> list[Message]:
        """Take the first message with those after it that are of the same event."""
        group = [self._waiting.popleft()]
        while self._waiting and self._waiting[0].event == group[0].event:
            group.append(self._waiting.popleft())
        return group

    def _deliver(self, group: Sequence[Message]) -> None:
        body = json.dumps(payload(self.target, group, self._head), ensure_ascii=True).encode()
        pause, problem = self._pause, ""
        for attempt in range(1, self._tries + 1):
            problem, again, asked = post(self.target.url, body)
            if not problem:
                return
            if not again or attempt == self._tries:
                break
            if not self._sleep(max(pause, asked)):
                problem += "; the launch ended meanwhile"
                break
            pause = min(2 * pause, LONGEST_PAUSE)
        self._say(f"{self.target.name}: {group[0].event} could not be posted: {problem}")

    def _sleep(self, seconds: float) -> bool:
        """Wait before another try; False when the launch has ended and there is no time for one."""
        end = time.monotonic() + min(seconds, LONGEST_PAUSE)
        with self._changed:
            while (left := end - time.monotonic()) > 0:
                if self._closing is not None and end > self._closing:
                    return False
                self._changed.wait(left)
        return True


def payload(target: Target, group: Sequence[Message], head: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is posted for messages of one event; secrets in their texts are hidden."""
    lines = [message.text for message in group[:MOST_LINES]]
    if len(group) > MOST_LINES:
        lines.append(f"... and {len(group) - MOST_LINES} more")
    text: str = redact("\n".join(lines))
    if target.kind == "slack":
        title = f"{head['study']}/{head['profile']}"
        shown = text if text.startswith(title) else f"{title}: {text}"
        return {"text": shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
    items = [{"text": message.text, **message.detail} for message in group]
    return redact({"format": 1, "event": group[0].event, "time": time.time(), **head, "text": text, "items": items})  # type: ignore[no-any-return]


def post(url: str, body: bytes, *, timeout: float = TIMEOUT) -> tuple[str, bool, float]:
    """Post JSON; return what went wrong (empty when nothing did), whether to try again, and the pause asked for.

    The address is in no part of what is returned.
    """
    import http.client
    from urllib.error import HTTPError, URLError
    from urllib.request import Request

    try:
        request = Request(url, data=body, method="POST", headers={"Content-Type": "application/json; charset=utf-8"})
        with _opener().open(request, timeout=timeout) as answer:
            answer.read(1024)
        return "", False, 0.0
    except HTTPError as error:
        with error:
            asked = error.headers.get("Retry-After", "") if error.headers else ""
        return f"HTTP {error.code}", error.code >= 500 or error.code in _PASSING, _seconds(asked)
    except URLError as error:
        return _reason(error.reason), True, 0.0
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _reason(error), not isinstance(error, ValueError), 0.0


def _opener() -> Any:
    """Return an opener that follows no redirect: a post would become a get, and its content go elsewhere."""
    from urllib.request import HTTPRedirectHandler, build_opener

    class NoRedirect(HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    return build_opener(NoRedirect())


def _reason(error: object) -> str:
    """Return a failure by its kind; its own words may hold the host's name."""
    number = getattr(error, "errno", None)
    return (
        f"{type(error).__name__}: {os.strerror(number)}"
        if isinstance(number, int) and number > 0
        else type(error).__name__
    )


def _seconds(text: str) -> float:
    try:
        return min(max(float(text), 0.0), LONGEST_PAUSE)
    except ValueError:
        return 0.0
