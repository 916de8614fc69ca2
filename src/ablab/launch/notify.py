"""Tells webhooks what happens during a launch: that it ended, that a run failed, that a verdict was reached.

Nothing here can hold up or fail a launch: it listens to notices, reads the file of verdicts when that has changed, and
hands messages to `webhook`, which posts them from threads of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ablab.contract.failure import AblabError
from ablab.launch.options import LaunchSummary, Notice, OnEvent
from ablab.launch.webhook import FIRST_PAUSE, TRIES, Message, Outlet, Say, Target
from ablab.store.files import read_lines
from ablab.store.redact import read_env
from ablab.study.schema import Notify, Study
from ablab.study.webhooks import HIDDEN

#: Seconds a launch that has ended waits for what is still to be posted.
PATIENCE = 10.0

#: Says a line of a launcher in the background, whose standard output is its log.
to_log: Say = partial(print, flush=True)


def targets(
    wanted: Sequence[Notify], *, folders: Sequence[Path] = (), environment: Mapping[str, str] | None = None
) -> tuple[list[Target], list[str]]:
    """Return the webhooks whose address is known, and a sentence for each whose is not.

    Args:
        wanted: as the study names them.
        folders: where a `.env` file may hold the variable.
        environment: variables; None means this process's.
    """
    variables = dict(os.environ if environment is None else environment)
    for folder in folders:
        variables = {**read_env(folder / ".env"), **variables}
    found, missing = [], []
    for place, each in enumerate(wanted):
        name = f"notify[{place}]"
        url = (each.url if each.url is not None else variables.get(each.url_env or "", "")).strip()
        if url and url != HIDDEN and url.startswith(("http://", "https://")):
            found.append(Target(name=name, url=url, kind=each.kind, on=each.on))
        elif url == HIDDEN:
            missing.append(f"{name}: its address was not stored with the study; nothing is posted there")
        elif url:
            missing.append(f"{name}: the variable {each.url_env} holds no http(s) address; nothing is posted there")
        else:
            missing.append(f"{name}: the variable {each.url_env} is not set; nothing is posted there")
    return found, missing


class Notifier:
    """Listens to a launch and tells webhooks.

    Args:
        study: what is launched.
        found: its webhooks.
        history: `verdicts.jsonl` of the study, where verdicts are kept when they change; what it holds now is known.
        say: told what could not be delivered; its lines hold no address.
        pause, tries: see `Outlet`.
        patience: seconds that the end of a launch waits for what is still to be posted.
    """

    def __init__(
        self,
        study: Study,
        found: Sequence[Target],
        *,
        history: Path,
        say: Say,
        pause: float = FIRST_PAUSE,
        tries: int = TRIES,
        patience: float = PATIENCE,
    ) -> None:
        self._title = f"{study.name}/{study.profile}"
        head = {"study": study.name, "profile": study.profile}
        self._outlets = [Outlet(target, head=head, say=say, pause=pause, tries=tries) for target in found]
        self._say, self._patience = say, patience
        self._verdicts = VerdictNews(history, title=self._title)
        self._summary: tuple[str, LaunchSummary] | None = None

    def __call__(self, notice: Notice) -> None:
        """Take one notice of the launcher; never raises."""
        try:
            if notice.kind == "failed":
                self._put(Message(event="failed", text=notice.text, detail={"run": notice.run}))
            elif notice.kind == "tick":
                self._tell_verdicts()
            elif notice.kind == "launch" and isinstance(summary := notice.detail.get("summary"), LaunchSummary):
                self._summary = notice.text, summary
            elif notice.kind == "ended":
                self.end()
        except Exception as error:
            self._say(f"notify: {type(error).__name__}: {error}")

    def end(self) -> None:
        """Tell the last verdicts and that the launch has ended; wait, within patience, until everything is posted."""
        self._tell_verdicts()
        if self._summary is not None:
            self._put(_ended(self._title, *self._summary))
        until = time.monotonic() + self._patience
        for outlet in self._outlets:
            left = outlet.close(until)
            if left:
                self._say(f"{outlet.target.name}: {left} messages were not posted before the launch ended")

    def _tell_verdicts(self) -> None:
        if any("verdict" in outlet.target.on for outlet in self._outlets):
            for message in self._verdicts.news():
                self._put(message)

    def _put(self, message: Message) -> None:
        for outlet in self._outlets:
            if message.event in outlet.target.on:
                outlet.put(message)


def _ended(title: str, text: str, summary: LaunchSummary) -> Message:
    counts = {
        "done": len(summary.done),
        "reused": len(summary.reused),
        "failed": len(summary.failed),
        "blocked": len(summary.blocked),
        "stopped": len(summary.stopped),
        "left": len(summary.left),
    }
    detail = {"launch": summary.launch, "counts": counts, "seconds": summary.seconds}
    return Message(event="finished", text=f"{title}: the launch ended: {text}", detail=detail)


class VerdictNews:
    """What is new in the file that keeps verdicts: a comparison that was decided, or decided otherwise.

    Args:
        path: `verdicts.jsonl` of a study; what stands there now is no news.
        title: what the study is called.
    """

    def __init__(self, path: Path, *, title: str) -> None:
        self._path, self._title = path, title
        self._mark: tuple[int, int] | None = None
        self._known: dict[str, dict[str, Any]] = {}
        self._lines = 0
        self.news()

    def news(self) -> list[Message]:
        """Return a message for each change since the last call; a line that cannot be read is none."""
        try:
            found = self._path.stat()
            mark = (found.st_mtime_ns, found.st_size)
            if mark == self._mark:
                return []
            self._mark = mark
            lines = read_lines(self._path, problems=[])
        except (OSError, AblabError):
            return []
        new, self._lines = lines[self._lines :], len(lines)
        return [message for line in new if (message := self._take(line)) is not None]

    def _take(self, line: Mapping[str, Any]) -> Message | None:
        name = str(line.get("comparison", ""))
        words = {str(v.get("experiment")): str(v.get("verdict")) for v in line.get("variants", ())}
        state = {**words, "": str(line.get("sensitive"))}
        before, self._known[name] = self._known.get(name, {}), state
        decided = {*words.values(), *before.values()} & {"met", "not met"} or line.get("sensitive") is False
        if before == state or not decided:
            return None
        told = (
            "not sensitive, no verdict"
            if line.get("sensitive") is False
            else "; ".join(map(_variant, line["variants"]))
        )
        text = f"{self._title}: verdict of {name} ({line.get('criterion')}, against {line.get('baseline')}): {told}"
        return Message(event="verdict", text=text, detail={"comparison": name, "verdict": dict(line)})


def _variant(variant: Mapping[str, Any]) -> str:
    """Return a kept verdict of one arm in a few words."""
    text = f"{variant.get('experiment')} {str(variant.get('verdict')).upper()}"
    first: Mapping[str, Any] = next(iter(variant.get("conditions", ())), {})
    if first.get("point") is None:
        return text
    interval = "" if first.get("low") is None else f" [{first['low']:.4g}, {first['high']:.4g}]"
    return f"{text} {first['point']:.4g}{interval} n = {first.get('n')}"


def heard_by(*listeners: OnEvent | None) -> OnEvent:
    """Return what passes every notice on to those of the listeners there are, in their order."""

    def heard(notice: Notice) -> None:
        for each in listeners:
            if each is not None:
                each(notice)

    return heard


def listener(study: Study, *, history: Path, say: Say) -> Notifier | None:
    """Return what tells the study's webhooks about a launch; None where it has none that can be told."""
    folders = [Path.cwd(), *([Path(study.path).resolve().parent] if study.path else [])]
    found, missing = targets(study.notify, folders=folders)
    for sentence in missing:
        say(sentence)
    return Notifier(study, found, history=history, say=say) if found else None
