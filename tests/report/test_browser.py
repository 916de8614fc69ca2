"""The page in a real browser: its script runs through without an error, charts are drawn, keys read values.

Runs only where a Chromium is installed; elsewhere it says so.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ablab.report import html
from ablab.report.document import Bars, Card, Cards, Chart, Curves, Document, Folded, Line, Section, Text

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)

pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium here (apt-get install chromium)")

NAME = "</script><b>arm</b> & co"


def page() -> str:
    lines = tuple(
        Line(
            arm=f"{NAME} {arm}",
            seed=seed,
            run=f"train-{arm}{seed}",
            points=tuple((float(x), None if x == 7 and arm == 1 else 9.0 / (x + 1) + arm) for x in range(60)),
        )
        for arm in range(30)
        for seed in (1, 2)
    )
    charts = tuple(
        Chart(
            title=f"{name} over steps",
            metric=name,
            lines=lines,
            x_label="step",
            y_label=name,
            better="lower",
            many=True,
        )
        for name in ("val/loss", "train/loss")
    )
    single = Chart(
        title="one", metric="one", lines=lines[:1], x_label="step", y_label="one", rule=2.0, rule_label="margin"
    )
    blocks = (
        Curves(title="Curves", charts=charts, columns=("arm", "first", "last", "seeds")),
        Folded(title="folded", blocks=(single, Text(text="inside")), id="arm-1"),
        Bars(title="time", parts=("a", "b"), rows=((NAME, (1.0, 2.0), "3 s"),), unit="s"),
    )
    badge = ("met", "good", (NAME,))
    cards = Cards(
        cards=(Card(name="c", link="arm-1", question=NAME, asked="x ≤ 1", badges=(badge,), answers=()),),
        columns=("a", "b", "c"),
    )
    sections = (
        Section(id="verdicts", title="Verdicts", blocks=(cards,)),
        Section(id="curves", title="Curves", blocks=blocks),
    )
    return html.render(Document(title=NAME, subtitle=NAME, sections=sections, live=True, written="now"))


def look(path: Path, folder: Path, *, anchor: str = "") -> tuple[str, str]:
    """Return what the page has become, and what the browser complained of."""
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
        f"--user-data-dir={folder}", "--window-size=1000,4000", "--virtual-time-budget=3000",
        "--enable-logging=stderr", "--v=0", "--dump-dom", f"file://{path}{anchor}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(complaints)


def test_the_script_runs_through_and_draws(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(), encoding="utf-8")
    seen, complaints = look(path, tmp_path / "profile", anchor="#arm-1")
    assert complaints == ""
    assert 'data-ready="yes"' in seen, "the script ran to its last line"
    assert re.search(r'<div class="tools"[^>]*>\s*<button', seen), "its tools are there"
    assert seen.count('class="drawing live"') == 2, "both charts are drawn by the script, the folded one as well"
    assert re.search(r'<details class="folded" id="arm-1" open', seen), "an anchor opens what it is in"
    assert "<b>arm</b>" not in seen and "✕" in seen
    assert seen.count('aria-pressed="true"') >= 8 and 'type="search"' in seen, "arms to choose from, and to find"
    assert "<option" in seen and 'type="range"' in seen
