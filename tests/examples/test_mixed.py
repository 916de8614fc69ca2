"""A pipeline that mixes kinds, and one question asked twice, by a script and by the built-in task: equal numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablab.lab import load

#: One question twice: `loop.py` beside the built-in task.
EXAMPLE = Path(__file__).parents[2] / "examples" / "same_question"


def test_the_same_question_by_script_and_by_built_in_task_has_the_same_numbers(tmp_path: Path):
    lab = load(EXAMPLE / "study.yaml", store=tmp_path / "lab", overrides=("seeds=[3]",))
    summary = lab.run()
    assert not summary.failed and not summary.blocked, summary
    for metric in ("train/loss", "val/loss", "test/loss", "test/perplexity"):
        mine, theirs = (lab.results.value(arm, 3, metric).last for arm in ("script", "built-in"))
        assert mine == pytest.approx(theirs, rel=1e-5), metric
