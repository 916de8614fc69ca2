"""The live view fits every terminal: never wider, never higher, whatever there is to show."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from ablab.report.machine import Gpu, Machine
from ablab.report.screen import Screen, clipped
from ablab.report.status import StatusRow
from ablab.report.watching import Snapshot, Wait, Watcher
from ablab.store.layout import Store

SIZES = [(200, 60), (120, 40), (80, 24), (60, 26), (40, 12), (20, 6), (10, 3), (2, 2), (1, 1)]
HOSTILE = "\x1b[31mred\x1b[0m\r\n[bold]한국어 실험 이름[/bold]\x07" * 3

MACHINE = Machine(
    cores=16, busy=0.5, load=3.2, used=2**33, memory=2**35, free=2**38, disk=2**40, temperature=("k10temp", 61.0),
    gpus=tuple(Gpu(index=n, name="NVIDIA H100", used=2**33, memory=80 * 2**30, busy=97, temperature=60, power=400.0)
               for n in range(10)),
)  # fmt: skip


def row(number: int, **options: object) -> StatusRow:
    values: dict[str, object] = {
        "experiment": f"arm-{number}", "seed": 42, "stage": "train", "run": f"train-{number}", "status": "running",
        "progress": 0.4, "step": 400, "steps": 1000, "remaining": 1234.0, "per_second": 3.3, "loss": 2.5, "best": 2.4,
        "best_metric": "val/loss", "gap": 1.03, "gap_step": 400, "device": "cuda:0", "memory": 2**33,
    }  # fmt: skip
    return StatusRow(**{**values, **options})  # type: ignore[arg-type]


def snapshot(rows: int, waits: int, *, name: str = "") -> Snapshot:
    listed = tuple(row(n, experiment=name or f"arm-{n}", message=name) for n in range(rows))
    return Snapshot(
        title=name or "gpt-oelm/laptop",
        store="/lab",
        time=time.time(),
        counts={"running": rows, "pending": waits, "done": 3},
        share=0.43,
        rows=listed,
        waits=tuple(
            Wait(title=name or f"arm-{n} evaluate", reason="waits for train", rank=n % 4) for n in range(waits)
        ),
        losses={each.run: [(float(s), 3.0 - s / 500) for s in range(0, 1000, 10)] for each in listed[:10]},
    )


def drawn(screen: Screen, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(screen, end="")
    return capture.get().split("\n")


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(("rows", "waits"), [(0, 0), (1, 0), (3, 5), (500, 5000)])
@pytest.mark.parametrize("name", ["", HOSTILE])
def test_every_screen_fits(width: int, height: int, rows: int, waits: int, name: str) -> None:
    for machine in (MACHINE, None):
        lines = drawn(Screen(snapshot=snapshot(rows, waits, name=name), machine=machine), width, height)
        assert len(lines) <= height
        assert max(map(cell_len, lines)) <= width
        assert not any(character in "".join(lines) for character in "\x1b\r\x07")


def test_a_usual_terminal_shows_all_parts() -> None:
    text = "\n".join(drawn(Screen(snapshot=snapshot(3, 50), machine=MACHINE), 140, 40))
    for part in ("▶ 3 running", "43 %", "arm-1 42 train", "20m34s", "+3.0 % @400", "loss 3 → 1.02 @990", "▁", "⠀"):
        assert part in text
    for part in ("61 °C (k10temp)", "disk 256 GiB free of 1.0 TiB", "GPU 7", "60 °C", "400 W", "and 2 more GPUs"):
        assert part in text
    assert "arm-0 evaluate: waits for train" in text
    assert "more" in text


def test_a_narrow_terminal_keeps_what_matters_most() -> None:
    lines = drawn(Screen(snapshot=snapshot(2, 0), machine=None), 40, 12)
    assert any("arm-0 42 train" in line and "40 %" in line for line in lines)


def test_what_does_not_fit_is_counted() -> None:
    lines = drawn(Screen(snapshot=snapshot(100, 100), machine=None), 80, 24)
    more = [int(line.split("and ")[1].split(" ")[0]) for line in lines if "... and" in line]
    shown = sum("42 train" in line for line in lines), sum(": waits for train" in line for line in lines)
    assert [100 - shown[0], 100 - shown[1]] == more


@given(st.text(), st.integers(0, 30))
def test_a_clipped_text_never_takes_more_room(text: str, room: int) -> None:
    assert cell_len(clipped(text, room)) <= max(room, 0) or cell_len(text) <= room


def test_a_store_of_five_thousand_runs_is_watched_by_looking_at_few(tmp_path: Path) -> None:
    for number in range(5000):
        folder = tmp_path / "runs" / f"train-{number:020x}"
        folder.mkdir(parents=True)
        done = number % 50 != 0
        state = {
            "format": 1,
            "status": "done" if done else "failed",
            "updated": 1.0,
            "message": "" if done else "broke",
        }
        (folder / "state.json").write_text(json.dumps(state))
        if done:
            (folder / "result.json").write_text("{}")
    watcher = Watcher(Store(tmp_path))
    first = watcher.look(most=40)
    assert (first.counts["done"], first.counts["failed"], len(first.rows)) == (4900, 100, 40)
    lines = drawn(Screen(snapshot=watcher.look(most=40), machine=MACHINE), 100, 30)
    assert len(lines) <= 30
