"""Study and source edited during a launch: what runs was frozen before."""

import shutil
from pathlib import Path

import ablab


def test_an_edit_during_a_launch_changes_nothing_that_runs(lab, undisturbed, same, tmp_path):
    """All that computes is broken as soon as the launch has begun, before any worker can have imported it."""
    source = tmp_path / "source" / "ablab"
    shutil.copytree(Path(ablab.__file__).parent, source, ignore=shutil.ignore_patterns("__pycache__"))
    study = Path(shutil.copy(lab.study, tmp_path / "study.yaml"))
    lab.study, lab.env["PYTHONPATH"] = study, str(source.parent)
    process = lab.start()
    assert process.stdout is not None
    begun = process.stdout.readline()
    assert "5 runs to do" in begun, begun
    study.write_text("name: [another\n", encoding="utf-8")
    broken = [path for room in ("models", "training", "data", "worker") for path in (source / room).rglob("*.py")]
    assert len(broken) > 20
    for path in broken:
        path.write_text("raise SystemExit('edited while a launch goes on')\n", encoding="utf-8")
    text = lab.finish(process)
    same(lab, text, undisturbed)
    assert all(run.attempts() == [1] for run in lab.runs())
