"""`ablab watch`: a live view of what runs, what waits for what, and the machine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablab.cli.common import OverrideArgument, ProfileOption, StoreOption, say

if TYPE_CHECKING:
    from ablab.report.watching import Watcher

MaybeStudy = Annotated[str | None, typer.Argument(help="The study file; without it, every study of the store.")]
#: What may still go on by itself.
_OPEN = ("running", "pending", "waiting", "paused")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("watch")(watch)


def watch(
    study: MaybeStudy = None,
    overrides: OverrideArgument = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    every: Annotated[float, typer.Option("--every", help="Seconds between looks.", min=0.2)] = 2.0,
) -> None:
    """Watch runs live: progress, curves, devices, temperature, disk, and what waits for what. q or Ctrl-C leaves.

    Where the output is no terminal, a line is printed at each change, until nothing is left that goes on by itself.
    """
    watcher = _watcher(study, overrides, profile=profile, store=store)
    if not sys.stdout.isatty():
        _lines(watcher, every)
        return
    with contextlib.suppress(KeyboardInterrupt):
        _live(watcher, every)
    say(summary(watcher.look(most=1).counts))


def _watcher(study: str | None, overrides: list[str] | None, *, profile: str, store: str | None) -> Watcher:
    from ablab.report.watching import Watcher
    from ablab.store.layout import open_store

    if study is None:
        return Watcher(open_store(store))
    from ablab.cli.common import open_lab

    lab = open_lab(study, overrides, profile=profile, store=store)
    return Watcher(lab.store, lab.plan(), lab.plan)


def summary(counts: Any) -> str:
    """Return the counts of a look in a line, what needs eyes first."""
    from ablab.report.status import ORDER

    return ", ".join(f"{counts[status]} {status}" for status in ORDER if counts.get(status)) or "nothing has begun"


def _lines(watcher: Watcher, every: float) -> None:
    last = ""
    while True:
        counts = watcher.look(most=0).counts
        line = summary(counts)
        if line != last:
            say(f"{time.strftime('%H:%M:%S')} {line}")
            last = line
        if not any(counts.get(status) for status in _OPEN):
            return
        time.sleep(every)


def _live(watcher: Watcher, every: float) -> None:
    """Draw again after each pause, and at once when the terminal changes its size."""
    from rich.console import Console
    from rich.live import Live

    from ablab.report.machine import Sensors
    from ablab.report.screen import Screen

    console = Console()
    sensors = Sensors(watcher.root)
    sensors.look()
    with _keys() as wait, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            # Only what fits is read one by one.
            snapshot = watcher.look(most=max(1, console.height))
            live.update(Screen(snapshot=snapshot, machine=sensors.look()), refresh=True)
            # A look at a store of ten thousand open runs on a slow disk must not become all that its machine does.
            due = time.monotonic() + max(every, 10 * (time.monotonic() - began))
            while (left := due - time.monotonic()) > 0:
                heard = wait(left)
                if heard == "leave":
                    return
                if heard == "resized":
                    live.refresh()


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """Yield a function that waits: it returns "leave" for q, "resized" when the terminal was, and "" after a while.

    Signals to end leave the screen as it was before.
    """
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.getsignal(number) for number in (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)}
    old_wake = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGWINCH, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    terminal = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None

    def wait(seconds: float) -> str:
        sources = [woken] if terminal is None else [woken, terminal]
        readable, _, _ = select.select(sources, [], [], seconds)
        if terminal in readable and terminal is not None and os.read(terminal, 64) in (b"q", b"Q", b"\x1b", b""):
            return "leave"
        if woken in readable:
            os.read(woken, 4096)
            return "resized"
        return ""

    try:
        with _raw(terminal):
            yield wait
    finally:
        signal.set_wakeup_fd(old_wake)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(woken)
        os.close(wake)


def _leave(number: int, _: Any) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _raw(terminal: int | None) -> Iterator[None]:
    """Take keys as they are pressed, without showing them."""
    if terminal is None:
        yield
        return
    import termios
    import tty

    saved = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, saved)
