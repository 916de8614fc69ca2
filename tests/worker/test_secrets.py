"""What task code and its libraries print or raise is kept without secrets."""

from __future__ import annotations

from pathlib import Path

from ablab.contract.failure import EXIT_FAILED

SECRET = "Wd93kfQpLx72mNvB"
TASK = """
import os, sys
from dataclasses import replace
sys.path.insert(0, {folder!r})
import tiny

class Talks(tiny.Tiny):
    def model(self, *, seed):
        print("the token is", os.environ["SERVICE"])
        raise RuntimeError("refused " + os.environ["SERVICE"])

SPEC = replace(tiny.SPEC, code="talks.py:Talks")
"""


def test_a_secret_that_task_code_prints_or_raises_is_in_no_file(template, make_run, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    (study / ".env").write_text(f"SERVICE={SECRET}\n")
    (study / "talks.py").write_text(TASK.format(folder=str(Path(__file__).parent)))
    run = make_run(task="talks.py:SPEC", study_folder=str(study))
    assert template.run(run) == EXIT_FAILED
    log, end = run.attempt(1).log.read_text(), run.attempt(1).read_end()
    assert "the token is [redacted]" in log and "refused [redacted]" in end["message"] and end["kind"] == "crash"
    assert not [path for path in run.path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
