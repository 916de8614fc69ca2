"""Claims under real processes: one holder, dead ones replaced once, living ones never."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ablab.store import claims, processes
from ablab.store.claims import STALE, Claimed, ClaimLost, Holder, acquire, is_alive, read_holder

HOLD = """
import sys, time
from ablab.store.claims import acquire
claim = acquire(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train-01" / "claim.json"


def holder_of(path: Path) -> Holder:
    holder = read_holder(path)
    assert holder is not None
    return holder


def rewrite(path: Path, **fields: object) -> None:
    """Change fields of a claim in place, and its heartbeat when given as an age in seconds."""
    age = fields.pop("age", None)
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    if isinstance(age, int | float):
        os.utime(path, (time.time() - age, time.time() - age))


def test_a_claim_is_exclusive_until_released(path: Path) -> None:
    with acquire(path) as claim:
        claim.check()
        holder = holder_of(path)
        assert (holder.pid, holder.host) == (os.getpid(), processes.host()) and is_alive(holder)
        with pytest.raises(Claimed, match=rf"held by process {os.getpid()} on") as error:
            acquire(path)
        assert error.value.holder == replace(holder, heartbeat=error.value.holder.heartbeat)
    assert read_holder(path) is None and list(path.parent.iterdir()) == []
    claim.release()
    with acquire(path):
        pass


def test_a_killed_holder_is_dead_also_as_a_zombie(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    with pytest.raises(Claimed):
        acquire(path)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}/stat").exists() and not is_alive(holder_of(path))
    with acquire(path) as claim:
        claim.check()
    child.communicate()


def test_a_process_with_the_same_number_is_another_process(path: Path) -> None:
    with acquire(path):
        rewrite(path, start="1")
        assert not is_alive(holder_of(path))


def test_a_holder_elsewhere_lives_by_its_heartbeat(path: Path) -> None:
    with acquire(path):
        rewrite(path, host="another", age=STALE - 5)
        assert is_alive(holder_of(path))
        with pytest.raises(Claimed, match="on another"):
            acquire(path)
        rewrite(path, age=STALE + 5)
        assert not is_alive(holder_of(path))


def test_another_container_of_this_machine_lives_by_its_heartbeat(path: Path) -> None:
    with acquire(path):
        rewrite(path, namespace="pid:[1]", pid=2**22 + 5, age=1)
        assert is_alive(holder_of(path))
        rewrite(path, age=STALE + 5)
        assert not is_alive(holder_of(path))


def test_after_a_reboot_a_holder_is_dead_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with acquire(path):
        rewrite(path, boot="an earlier one", age=30)
        monkeypatch.setattr(processes, "boot_time", lambda: time.time() - 10)
        assert not is_alive(holder_of(path))
        # It has beaten since: another machine bears our name.
        monkeypatch.setattr(processes, "boot_time", lambda: time.time() - 1000)
        assert is_alive(holder_of(path))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1, "who": 2}', b'{"format": 9}', b"\xff\x00"])
def test_a_claim_that_cannot_be_read_is_waited_for_then_replaced(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(Claimed, match="an unknown process"):
        acquire(path)
    os.utime(path, (time.time() - STALE - 1,) * 2)
    with acquire(path) as claim:
        claim.check()


def test_a_lost_claim_is_noticed_and_not_released_from_its_new_holder(path: Path) -> None:
    first = acquire(path)
    rewrite(path, start="1")
    with acquire(path) as second:
        with pytest.raises(ClaimLost, match="was lost"):
            first.check()
        first.release()
        second.check()
    with pytest.raises(ClaimLost, match="nobody"):
        first.check()


def test_the_heart_beats_until_released_and_never_for_another(path: Path) -> None:
    def beats() -> bool:
        old = time.time() - 1000
        os.utime(path, (old, old))
        deadline = time.time() + 5
        while time.time() < deadline:
            if path.stat().st_mtime > old + 500:
                return True
            time.sleep(0.01)
        return False

    claim = acquire(path, beat=0.02)
    assert beats()
    rewrite(path, token="another's", host="another")
    os.utime(path, (5, 5))
    time.sleep(0.2)
    assert path.stat().st_mtime == 5
    claim.release()
    assert path.exists()


def test_a_forked_child_holds_nothing_but_may_claim_for_itself(path: Path, tmp_path: Path) -> None:
    claim = acquire(path)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            claim.check()
        except ClaimLost:
            claim.release()
            own = acquire(tmp_path / "other.json", beat=0.01)
            own.check()
            code = 0 if own.holder.pid == os.getpid() and is_alive(holder_of(tmp_path / "other.json")) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    claim.check()
    assert not is_alive(holder_of(tmp_path / "other.json"))
    acquire(tmp_path / "other.json").release()
    claim.release()


STEAL = """
import os, sys, time
from pathlib import Path
from ablab.store.claims import Claimed, acquire
root, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for line in sys.stdin:
    path = root / line.strip() / "claim.json"
    while not (root / "go").exists():
        pass
    try:
        claim = acquire(path)
    except Claimed as error:
        print("lost", error.holder.pid, flush=True)
        sys.stdin.readline()
        continue
    print("won", os.getpid(), flush=True)
    sys.stdin.readline()
    claim.check()
    claim.release()
"""


def test_of_many_stealers_exactly_one_wins(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", STEAL, str(tmp_path), str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for n in range(4)
    ]
    streams = [(worker.stdin, worker.stdout) for worker in workers]
    for _, out in streams:
        assert out is not None and out.readline() == "ready\n"
    for turn in range(40):
        folder = tmp_path / f"run-{turn}"
        if turn % 2:
            # A dead claim to steal; in the other turns there is none, and creation is what they race for.
            dead = acquire(folder / "claim.json")
            dead._stop.set()
            rewrite(folder / "claim.json", start="1", token=f"dead-{turn}")
        (tmp_path / "go").unlink()
        for into, _ in streams:
            assert into is not None
            into.write(f"{folder.name}\n")
        (tmp_path / "go").touch()
        said = [out.readline().split() for _, out in streams if out is not None]
        winners = [pid for what, pid in said if what == "won"]
        assert len(winners) == 1 and {pid for _, pid in said} == set(winners), said
        for into, _ in streams:
            assert into is not None
            into.write("next\n")
    for worker in workers:
        assert worker.communicate()[1] is None and worker.returncode == 0
    assert all(not list((tmp_path / f"run-{turn}").iterdir()) for turn in range(40))


def test_without_hard_links_a_claim_is_still_exclusive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(claims.os, "link", refuse)
    with acquire(path) as claim:
        claim.check()
        with pytest.raises(Claimed):
            acquire(path)
    assert read_holder(path) is None
