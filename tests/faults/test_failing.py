"""Failures that no restart mends: memory that runs out, and a loss that is no number."""

import sys

import pytest

#: The program with an address space that holds an idle worker and 400 MB beside it.
LIMITED = """
import sys
from pathlib import Path
import ablab.worker.template as template
from importlib import import_module
for module in template.MODULES:
    import_module(module)
idle = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmPeak"))
from ablab import load
lab = load(sys.argv[1], profile="smoke", store=sys.argv[2], overrides=sys.argv[3:])
summary = lab.run(say=print, only=("trained",), address_space=idle + 400 * 2**20)
print("failed:", summary.failed)
print(lab.report())
sys.exit(bool(summary.failed))
"""
#: 32 x 512 tokens of 4,096 units are 256 MB, several times over; some thousand tokens fit.
WIDE = (
    "seeds=[42]",
    "defaults.data.max_documents=12",
    "defaults.model.width=8",
    "defaults.model.layers=1",
    "defaults.model.feedforward=4096",
    "defaults.model.context=512",
    "experiments.trained.pipeline.train.steps=2",
    "defaults.pipeline.train.schedule.warmup=1",
    "experiments.trained.pipeline.train.batch=32",
    "experiments.trained.pipeline.train.validation.every=2",
    "experiments.trained.pipeline.train.validation.batch=2",
    "defaults.pipeline.evaluate.batch=8",
)


def test_memory_that_runs_out_halves_the_micro_batch(lab, tmp_path):
    free = type(lab)(tmp_path / "free", overrides=WIDE, arms=("trained",))
    free.run()
    lab.finish(lab.start([sys.executable, "-c", LIMITED, str(lab.study), str(lab.root), *WIDE]))
    (run,) = lab.runs("train")
    result, whole = run.read_result(), free.store.run(run.name).read_result()
    micro = result.facts["micro_batch"]
    issues = run.read_issues()
    assert whole.facts["micro_batch"] == 32 and 1 <= micro <= 16 and 32 % micro == 0
    assert [issue["kind"] for issue in issues] == ["out-of-memory"] * len(issues) and issues
    assert result.attempts == len(issues) + 1
    assert "effective batch 32 kept" in issues[0]["resolution"]
    assert result.facts["samples.seen"] == whole.facts["samples.seen"] == 64
    assert result.metrics["val/loss"] == pytest.approx(whole.metrics["val/loss"], rel=1e-5)
    report = (lab.root / "studies" / "gpt-oelm" / "smoke" / "report.md").read_text()
    section = report.partition("## Issues and resolutions")[2].partition("\n## ")[0]
    assert section.count("effective batch 32 kept") == len(issues) and "out" in section


def test_a_loss_that_is_no_number_stops_its_run_alone(lab, undisturbed):
    rate = "experiments.frozen-orthogonal.pipeline.train.optimizer.learning_rate=1e38"
    lab.overrides = (*lab.overrides, rate)
    # Another rate for one arm alone is unsound, which is not the point here.
    text = lab.run("--force", code=1)
    done = {run.name for run in lab.runs() if run.done}
    failed = [run for run in lab.runs("train") if not run.done]
    assert len(done) == 3 and done <= undisturbed.outcome.keys()
    (run,) = failed
    assert run.attempts() == [1], "the same batch would do the same again"
    state, (issue,) = run.read_state(), run.read_issues()
    assert state.status == "failed" and state.kind == issue["kind"] == "not-finite"
    assert issue["detail"]["step"] >= 1
    assert "batch" in issue["message"] and issue["message"] in text
    assert not [other for other in lab.runs("evaluate") if not other.done and other.attempts()]
