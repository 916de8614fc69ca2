"""Draws what `ablab watch` shows into a terminal of any size: nothing that does not fit is drawn.

Each part is a list of lines; the parts share the height by what they need, and lose columns and lines as it shrinks.
Names and messages are text: no control character of theirs reaches the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ablab.contract.units import duration, figure, percent, size
from ablab.report.machine import Gpu, Machine
from ablab.report.spark import bar, braille, sparkline
from ablab.report.status import ORDER, StatusRow
from ablab.report.table_text import plain
from ablab.report.watching import Snapshot, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

#: How a status looks: a mark, which reads without colour, and a style.
MARKS: dict[str, tuple[str, str]] = {
    "running": ("▶", "green"),
    "failed": ("✗", "bold red"),
    "paused": ("‖", "yellow"),
    "waiting": ("…", "yellow"),
    "stopped": ("■", "magenta"),
    "pending": ("·", "dim"),
    "unresolved": ("!", "red"),
    "planned": ("○", "dim"),
    "done": ("✓", "cyan"),
}
_RANKS = ("red", "yellow", "", "dim")
#: Lines of a chart with its caption, and the height and width from which there is room for charts.
_CHART, _CHART_FROM, _CHART_WIDTH = 7, 26, 60
_MOST_GPUS = 8


@dataclass(frozen=True, kw_only=True)
class Screen:
    """A snapshot with the machine, drawn into whatever size the console has."""

    snapshot: Snapshot
    machine: Machine | None = None
    hint: str = "q leaves"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield as many lines as the terminal has, each as wide as it is at most."""
        width, height = options.max_width, options.height or console.height
        lines = self.lines(width, height)
        for place, line in enumerate(lines):
            yield fitted(line, width)
            if place < len(lines) - 1:
                yield Text("\n", end="")

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the lines of a screen of this size, at most `height`."""
        if width < 1 or height < 1:
            return []
        head = list(self._head(width))
        machine = list(self._machine(width)) if height >= 8 else []
        foot = [Text(self.hint, style="dim")] if height >= 6 else []
        room = height - len(head) - len(machine) - len(foot)
        if room < 1:
            return [*head, *foot][:height]
        charts = _CHART if height >= _CHART_FROM and width >= _CHART_WIDTH and self.snapshot.losses else 0
        runs, waits = self._shares(room - charts)
        body = [*self._runs(width, runs), *(self._charts(width) if charts else ()), *self._waits(waits)]
        body += [Text("")] * (room - len(body))
        return [*head, *body[:room], *machine, *foot]

    def _shares(self, room: int) -> tuple[int, int]:
        """Return the lines that runs and waits get: what they need, or three fifths and the rest."""
        runs = len(self.snapshot.rows) + 1 if self.snapshot.rows else 0
        waits = len(self.snapshot.waits) + 1 if self.snapshot.waits else 0
        if runs + waits <= room:
            return runs, waits
        mine = min(runs, max(room - waits, room * 3 // 5, 1))
        return mine, room - mine

    # --- Parts --------------------------------------------------------------------------------------------------------

    def _head(self, width: int) -> Iterator[Text]:
        now = time.strftime("%H:%M:%S", time.localtime(self.snapshot.time))
        line = Text()
        line.append(clipped(plain(self.snapshot.title), max(8, width - 40)), style="bold")
        for status in ORDER:
            count = self.snapshot.counts.get(status, 0)
            if count:
                mark, style = MARKS[status]
                line.append("  ").append(f"{mark} {count} {status}", style=style)
        if cell_len(line.plain) + len(now) + 2 <= width:
            line.append(" " * (width - cell_len(line.plain) - len(now)) + now, style="dim")
        yield line
        share = self.snapshot.share
        if share is not None:
            left = [
                row.remaining for row in self.snapshot.rows if row.status == "running" and row.remaining is not None
            ]
            told = f" {percent(share)}" + (f", the longest has {duration(max(left))} left" if left else "")
            yield Text.assemble((bar(share, max(1, width - cell_len(told))), "green"), told)

    def _runs(self, width: int, height: int) -> Iterator[Text]:
        if height < 1:
            return
        rows = self.snapshot.rows
        shown = rows if len(rows) < height else rows[: max(1, height - 2 if height > 3 else height)]
        hidden = len(rows) - len(shown)
        table = _columns(shown, self.snapshot, width)
        if height > len(shown):
            heads = "  ".join(_cell(name, room, right=right) for name, _, room, right in table)
            yield Text(f"  {heads}", style="dim underline")
        for place, row in enumerate(shown):
            mark, style = MARKS.get(row.status, ("?", ""))
            line = Text.assemble((f"{mark} ", style))
            line.append("  ".join(_cell(cells[place], room, right=right) for _, cells, room, right in table))
            yield line
        if hidden and height > len(shown) + 1:
            yield Text(f"  ... and {hidden} more", style="dim")

    def _charts(self, width: int) -> Iterator[Text]:
        """Yield up to three charts of losses side by side, the rows' first ones, with their ends as captions."""
        named = [(row, self.snapshot.losses[row.run]) for row in self.snapshot.rows if row.run in self.snapshot.losses]
        count = min(3, len(named), max(1, width // 40))
        room = (width - 2 * (count - 1)) // count
        columns = []
        for row, points in named[:count]:
            drawn = braille([points], width=room, height=_CHART - 2) or [""] * (_CHART - 2)
            seed = "" if row.seed is None else f" {row.seed}"
            ends = f"{figure(points[0][1])} → {figure(points[-1][1])} @{points[-1][0]:.0f}"
            name = clipped(plain(f"{row.experiment}{seed}"), max(4, room - cell_len(ends) - 8))
            columns.append([f"{name}: loss {ends}", *drawn])
        yield Text("")
        for place in range(_CHART - 1):
            line = Text("  ").join(
                Text(set_cell_size(column[place], room), style="" if place else "dim") for column in columns
            )
            yield line

    def _waits(self, height: int) -> Iterator[Text]:
        waits = self.snapshot.waits
        if not waits or height < 1:
            return
        if height > 1:
            yield Text("waiting for what", style="dim underline")
        room = height - 1 if height > 1 else 1
        shown = waits if len(waits) <= room else waits[: max(1, room - 1)]
        for wait in shown:
            yield _wait_line(wait)
        if len(shown) < len(waits) and room > len(shown):
            yield Text(f"... and {len(waits) - len(shown)} more", style="dim")

    def _machine(self, width: int) -> Iterator[Text]:
        found = self.machine
        if found is None:
            return
        parts = [f"CPU {bar(found.busy, 8)} {percent(found.busy)} of {found.cores}"]
        if found.load is not None:
            parts.append(f"load {found.load:.1f}")
        if found.temperature is not None:
            parts.append(f"{found.temperature[1]:.0f} °C ({plain(found.temperature[0])})")
        parts.append(f"memory {size(found.used)} of {size(found.memory)}")
        parts.append(f"disk {size(found.free)} free of {size(found.disk)}")
        yield from _wrapped(parts, width)
        for gpu in found.gpus[:_MOST_GPUS]:
            yield Text("   ".join(_gpu_parts(gpu)))
        if len(found.gpus) > _MOST_GPUS:
            yield Text(f"... and {len(found.gpus) - _MOST_GPUS} more GPUs", style="dim")


def _wrapped(parts: Sequence[str], width: int) -> Iterator[Text]:
    """Yield parts on as few lines as they fit."""
    line = ""
    for part in parts:
        if line and cell_len(line) + 3 + cell_len(part) > width:
            yield Text(line)
            line = part
        else:
            line = f"{line}   {part}" if line else part
    if line:
        yield Text(line)


def _gpu_parts(gpu: Gpu) -> Iterator[str]:
    yield f"GPU {gpu.index} {bar((gpu.busy or 0) / 100, 8)} " + ("—" if gpu.busy is None else f"{gpu.busy} %")
    yield f"{size(gpu.used)} of {size(gpu.memory)}"
    if gpu.temperature is not None:
        yield f"{gpu.temperature} °C"
    if gpu.power is not None:
        yield f"{gpu.power:.0f} W"
    yield plain(gpu.name)


def _wait_line(wait: Wait) -> Text:
    return Text.assemble((plain(wait.title), ""), ": ", (plain(wait.reason), _RANKS[wait.rank]))


# --- Columns ----------------------------------------------------------------------------------------------------------

Column = tuple[str, list[str], int, bool]

#: Columns of a run in the order they stand: head, text, right-aligned, and the order in which they go when it is narrow
#: (the highest first; 0 always stays).
_FIELDS: tuple[tuple[str, Callable[[StatusRow], str], bool, int], ...] = (
    ("run", lambda row: _run_name(row), False, 0),
    ("", lambda row: bar(row.progress, 8), False, 5),
    ("%", lambda row: percent(row.progress), True, 1),
    ("step", lambda row: f"{row.step}/{row.steps}" if row.steps else "", True, 8),
    ("left", lambda row: _left(row), True, 2),
    ("it/s", lambda row: figure(row.per_second, digits=3) if row.per_second else "", True, 9),
    ("loss", lambda row: figure(row.loss) if row.loss is not None else "", True, 4),
    ("curve", lambda row: "", False, 6),
    ("best", lambda row: f"{figure(row.best)} {row.best_metric}" if row.best is not None else "", True, 7),
    ("gap", lambda row: _gap(row), True, 3),
    ("memory", lambda row: size(row.memory) if row.memory else "", True, 10),
    ("device", lambda row: row.device, False, 11),
)
_CURVE = 14


def _run_name(row: StatusRow) -> str:
    seed = "" if row.seed is None else f" {row.seed}"
    return f"{row.experiment}{seed} {row.stage}"


def _left(row: StatusRow) -> str:
    if row.status != "running":
        return f"{row.status}: {row.message}" if row.message else row.status
    return duration(row.remaining) if row.remaining is not None else ""


def _gap(row: StatusRow) -> str:
    return "" if row.gap is None else f"{100 * (row.gap - 1):+.1f} % @{row.gap_step}"


def _columns(rows: Sequence[StatusRow], snapshot: Snapshot, width: int) -> list[Column]:
    """Return the columns that fit: (head, cells, width, right-aligned)."""
    columns: list[tuple[str, list[str], int, bool, int]] = []
    for name, text, right, drop in _FIELDS:
        cells = [plain(text(row)) for row in rows]
        if name == "curve":
            curves = [[y for _, y in snapshot.losses.get(row.run, ())] for row in rows]
            cells = [sparkline(values, width=_CURVE) for values in curves]
        most = max(4, int(width * (0.4 if drop == 0 else 0.3)))
        room = min(most, max((cell_len(cell) for cell in (name, *cells)), default=0))
        if any(cells) or drop == 0:
            columns.append((name, cells, room, right, drop))
    while len(columns) > 1 and 2 + sum(column[2] + 2 for column in columns) - 2 > width:
        columns.remove(max(columns, key=lambda column: column[4]))
    return [(name, cells, room, right) for name, cells, room, right, _ in columns]


def _cell(text: str, room: int, *, right: bool) -> str:
    text = clipped(text, room)
    gap = " " * (room - cell_len(text))
    return gap + text if right else text + gap


def clipped(text: str, room: int) -> str:
    """Return a text that takes at most `room` cells, its end replaced by an ellipsis where it is longer."""
    if cell_len(text) <= room:
        return text
    return set_cell_size(text, room - 1).rstrip() + "…" if room > 1 else set_cell_size(text, max(room, 0))


def fitted(line: Text, width: int) -> Text:
    """Return a line cut to the width of the terminal."""
    line.truncate(width, overflow="ellipsis" if width > 1 else "crop")
    line.no_wrap, line.end = True, ""
    return line
