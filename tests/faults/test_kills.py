"""SIGKILL of launcher and workers: the same command, started again, ends as if nothing had happened."""

import json
import random
import signal
import time


def test_kills_at_random_moments_change_nothing(lab, undisturbed, same, wait_for):
    """Once early, once inside a checkpoint write, once while training, once the launcher alone."""
    rng = random.Random(11)

    def early(process):
        time.sleep(rng.uniform(0.5, 2.5))

    def inside_a_checkpoint_write(process):
        known = set(lab.checkpoints(".tmp-*"))
        return wait_for(lambda: set(lab.checkpoints(".tmp-step*")) - known, process, pause=0.0002)

    def after_some_checkpoints(process):
        wanted = max([0, *(int(path.name[5:]) for path in lab.checkpoints("step-*"))]) + rng.randint(6, 20)
        return wait_for(lambda: any(int(p.name[5:]) >= wanted for p in lab.checkpoints("step-*")), process)

    for moment in (early, inside_a_checkpoint_write, after_some_checkpoints, inside_a_checkpoint_write):
        process = lab.start()
        moment(process)
        lab.kill()
        assert process.wait() in (0, -signal.SIGKILL)
    rows = json.loads(lab.ablab("status", "--json"))["runs"]
    assert rows and {row["status"] for row in rows} == {"stopped"}
    attempts = sum(len(run.attempts()) for run in lab.runs("train"))
    assert attempts >= 3, "the kills came too late to interrupt anything"
    text = lab.run()
    same(lab, text, undisturbed)
    # Nothing finished was done again, and no attempt began at zero that had a checkpoint to begin from.
    assert "0 runs to do" in lab.run()
    assert not lab.checkpoints(".tmp-*")


def test_a_killed_launcher_leaves_its_workers_to_the_next(lab, undisturbed, same, wait_for):
    process = lab.start()
    assert wait_for(lambda: lab.checkpoints("step-*"), process)
    process.kill()
    process.wait()
    text = lab.run()
    same(lab, text, undisturbed)
    assert all(run.attempts() == [1] for run in lab.runs())
