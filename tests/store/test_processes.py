"""A process is itself and no other."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from ablab.store.processes import boot_id, boot_time, host, pid_namespace, process_start


def test_the_start_of_a_process_is_constant_and_agrees_with_psutil() -> None:
    start = process_start(os.getpid())
    assert start is not None and start == process_start(os.getpid())
    ticks = os.sysconf("SC_CLK_TCK")
    assert abs(boot_time() + int(start) / ticks - psutil.Process().create_time()) < 2


def test_a_strange_name_does_not_confuse_it() -> None:
    code = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b') Z 1 (', 0, 0, 0); print('named', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert process_start(child.pid) is not None
    child.communicate(b"\n")
    assert process_start(child.pid) is None


def test_the_dead_and_zombies_have_no_start() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE and process_start(child.pid) is None
    child.wait()
    assert process_start(child.pid) is None


def test_names_of_machine_and_boot_are_constant() -> None:
    assert host() and boot_id() == boot_id() and pid_namespace() == pid_namespace() and boot_time() > 1e9
