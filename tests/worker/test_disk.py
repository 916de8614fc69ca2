"""A full disk: the run says so, loses nothing, and goes on when there is room."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = r"""
import os, sys
from pathlib import Path
sys.path.insert(0, os.environ["TESTS"])
from ablab.contract.order import Order
from ablab.store.layout import Store
from ablab.worker.main import execute

mount = Path(sys.argv[1])
store = Store(mount / "lab")
run = store.run("train-full").create()
run.write_order(Order(
    key="full", stage="train", kind="train", task="tiny.py:SPEC", study="s", profile="p", experiment="A", seed=1,
    sections={"model": {"width": 512}}, folder=str(run.path), study_folder=os.environ["TESTS"],
    parameters={"steps": 12, "batch": 8, "validation": {"every": 4}, "checkpoints": {"every": 1, "keep_every": 1}},
))
assert execute(run.order_path) == 1
end = run.attempt(1).read_end()
assert end["kind"] == run.read_state().kind == "disk-full", end
assert not run.done and not list(run.path.rglob(".tmp-step*"))
whole = sorted(run.checkpoints.glob("step-*"))
assert whole, "some checkpoints fitted"
(mount / "ballast").unlink()
assert execute(run.order_path) == 0
assert run.done and run.read_result().attempts == 2
start = next(line for line in run.attempt(2).events.read_text().splitlines() if '"start"' in line)
assert f'"step":{int(whole[-1].name[5:])}' in start.replace(" ", ""), start
print("as it should be")
"""


def test_a_full_disk_is_told_and_survived(tmp_path):
    here = Path(__file__).parent
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    mount = tmp_path / "small"
    mount.mkdir()
    # About six of the twelve checkpoints fit beside the ballast.
    command = (
        f"mount -t tmpfs -o size=24m tmpfs {mount} && head -c 17m /dev/zero > {mount}/ballast && "
        f"OMP_NUM_THREADS=1 TESTS={here} {sys.executable} {script} {mount}"
    )
    allowed = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(mount)], capture_output=True)
    if allowed.returncode != 0:
        pytest.skip(f"no user name spaces here: {allowed.stderr.decode().strip()}")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as it should be" in done.stdout
