"""Progress of a launch on a terminal: what happens is printed above one bar; elsewhere only the lines are printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ablab.cli.common import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ablab.launch.options import Notice
    from ablab.store.layout import Store

Say = Callable[[str], None]


class LaunchBar:
    """Counts the runs of a launch as their notices come; a run under way counts by its share of work done.

    Args:
        progress: what draws it.
        store: where the states of running runs are.
    """

    def __init__(self, progress: Progress, store: Store) -> None:
        self._progress, self._store = progress, store
        self._task: TaskID | None = None
        self._running: set[str] = set()
        self._finished = 0

    def begin(self, total: int) -> None:
        """Draw the bar of `total` runs."""
        self._task = self._progress.add_task("runs", total=total)

    def notice(self, notice: Notice) -> None:
        """Take one notice of the launcher."""
        if notice.kind in {"started", "adopted", "watched"} and notice.run:
            self._running.add(notice.run)
        elif notice.kind in {"finished", "failed", "stopped", "blocked"} and notice.run:
            self._running.discard(notice.run)
            self._finished += 1
        if self._task is not None:
            self._progress.update(self._task, completed=self._finished + self._under_way())

    def _under_way(self) -> float:
        states = [self._store.run(name).read_state() for name in self._running]
        return sum(state.progress for state in states if state is not None)


@contextmanager
def launch_progress(store: Store, *, total: int) -> Iterator[tuple[Say, Callable[[Notice], None] | None]]:
    """Yield (say, on_event) for a launch of `total` runs: with a bar on a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        yield say, None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        bar = LaunchBar(progress, store)
        bar.begin(total)

        def above(text: str) -> None:
            progress.console.print(Text(text))

        yield above, bar.notice
