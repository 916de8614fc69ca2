"""One launcher looks after a run at a time, and a dead one after none."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from ablab.launch.ownership import Ownership

HOLD = """
import sys
from ablab.launch.ownership import Ownership
mine = Ownership(sys.argv[1])
print(mine.take("train-1"), mine.take("train-2"), flush=True)
sys.stdin.readline()
"""


def test_two_launchers_in_one_process_exclude_each_other(tmp_path: Path) -> None:
    ours, theirs = Ownership(tmp_path), Ownership(tmp_path)
    assert ours.take("train-1") and ours.take("train-1")
    assert not theirs.take("train-1")
    assert theirs.take("train-2")
    ours.give("train-1")
    assert theirs.take("train-1")
    theirs.close()
    assert ours.take("train-2")
    ours.close()


def test_a_killed_launcher_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline().split() == ["True", "True"]
    ours = Ownership(tmp_path)
    assert not ours.take("train-1")
    assert ours.take("train-3")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert ours.take("train-1") and ours.take("train-2")
    ours.close()


def test_of_many_that_ask_at_once_one_gets_it(tmp_path: Path) -> None:
    owners = [Ownership(tmp_path) for _ in range(8)]
    barrier, taken = threading.Barrier(8), []

    def ask(owner: Ownership) -> None:
        barrier.wait()
        for run in range(50):
            if owner.take(f"train-{run}"):
                taken.append(run)

    threads = [threading.Thread(target=ask, args=(owner,)) for owner in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(50))
    for owner in owners:
        owner.close()
