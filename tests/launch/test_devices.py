"""GPUs on a fake NVML: which there are, whose they are, and launches that share and wait for them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lab_of_tests import Lab, experiment, stage

from ablab.contract.failure import ConfigError
from ablab.launch.devices import Busy, DevicePool, Nvml, choose_gpus
from ablab.launch.leases import Leases
from ablab.store.files import read_lines

GIB = 2**30


@dataclass
class Process:
    pid: int
    usedGpuMemory: int | None


@dataclass
class Memory:
    total: int
    used: int


@dataclass
class FakeNvml:
    """The part of pynvml that is used, over a list of processes by GPU."""

    count: int = 2
    processes: dict[int, list[Process]] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)
    broken: bool = False

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.NVMLError("no driver")

    def nvmlDeviceGetCount(self) -> int:
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}{handle}{handle}{handle}"

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"Fake 9000"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Memory:
        return Memory(80 * GIB, self.used.get(handle, 0))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Process]:
        return self.processes.get(handle, [])


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that is nobody's worker."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "--train", "theirs.py"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def pool(fake: FakeNvml, folder: Path, **options: Any) -> DevicePool:
    nvml = Nvml(fake)
    return DevicePool(nvml.gpus(), leases=Leases(folder), nvml=nvml, **options)


def test_gpus_are_listed_and_without_a_driver_there_are_none() -> None:
    found = Nvml(FakeNvml()).gpus()
    assert [(gpu.index, gpu.uuid, gpu.name, gpu.memory) for gpu in found] == [
        (0, "GPU-0000", "Fake 9000", 80 * GIB),
        (1, "GPU-1111", "Fake 9000", 80 * GIB),
    ]
    assert Nvml(FakeNvml(broken=True)).gpus() == []


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("1", [1]), ("2,0", [2, 0]), ("", []), ("GPU-2222", [2]), ("0,7,1", [0]), ("-1", []), ("GPU-9", [])],
)
def test_cuda_visible_devices_is_respected(monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[int]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.index for gpu in Nvml(FakeNvml(count=3)).gpus()] == expected


def test_devices_are_chosen_by_index() -> None:
    found = Nvml(FakeNvml(count=3)).gpus()
    assert [gpu.index for gpu in choose_gpus(found, (2, 0, 2))] == [2, 0]
    assert choose_gpus(found, None) == found
    assert choose_gpus(found, "cpu") == []
    with pytest.raises(ConfigError, match="no such GPU; there are: 0, 1, 2"):
        choose_gpus(found, (3,))
    with pytest.raises(ConfigError, match="expected GPU indices"):
        choose_gpus(found, "gpu")


def test_a_gpu_of_somebody_else_is_named(tmp_path: Path, stranger: int) -> None:
    fake = FakeNvml(count=1, processes={0: [Process(stranger, 3 * GIB)]})
    busy = pool(fake, tmp_path).take("train-1")
    assert isinstance(busy, Busy)
    assert f"process {stranger}, 3.0 GiB" in str(busy) and "theirs.py" in str(busy)
    fake.processes.clear()
    assert pool(fake, tmp_path).take("train-1") == (0,)


def test_crumbs_of_memory_are_no_use_and_unknown_memory_is(tmp_path: Path, stranger: int) -> None:
    fake = FakeNvml(count=1, processes={0: [Process(stranger, 2**20)]})
    assert pool(fake, tmp_path / "a").take("train-1") == (0,)
    fake.processes[0] = [Process(stranger, None)]
    assert isinstance(pool(fake, tmp_path / "b").take("train-1"), Busy)


def test_memory_without_a_visible_process_is_somebodys(tmp_path: Path) -> None:
    fake = FakeNvml(count=1, used={0: 30 * GIB})
    busy = pool(fake, tmp_path).take("train-1")
    assert "cannot be seen from here (30.0 GiB)" in str(busy)
    assert pool(FakeNvml(count=1, used={0: GIB}), tmp_path).take("train-1") == (0,)


def test_memory_of_a_leaseholder_and_its_children_is_ours(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    fake = FakeNvml(count=1, processes={0: [Process(os.getpid(), 9 * GIB), Process(child.pid, GIB)]})
    shared = pool(fake, tmp_path, share=2)
    assert isinstance(shared.take("train-1"), Busy)
    fake.processes.clear()
    assert shared.take("train-1") == (0,)
    fake.processes[0] = [Process(os.getpid(), 9 * GIB), Process(child.pid, GIB)]
    assert shared.take("train-2") == (0,)
    child.kill()
    child.wait()


def test_free_gpus_first_then_shares_then_nothing(tmp_path: Path) -> None:
    shared = pool(FakeNvml(count=2), tmp_path, share=2)
    taken = [shared.take(f"train-{n}") for n in range(5)]
    assert sorted(gpu for found in taken[:2] if not isinstance(found, Busy) for gpu in found) == [0, 1]
    assert sorted(gpu for found in taken[:4] if not isinstance(found, Busy) for gpu in found) == [0, 0, 1, 1]
    # That our own runs are at work is nothing to be told; another launch is.
    assert taken[4] == Busy()
    others = pool(FakeNvml(count=2), tmp_path, share=2).take("train-9")
    assert "GPU 0 is leased to" in str(others) and "GPU 1 is leased to" in str(others)


def test_several_gpus_are_taken_together_or_not_at_all(tmp_path: Path) -> None:
    gpus = pool(FakeNvml(count=3), tmp_path)
    assert gpus.take("train-1") == (0,)
    assert gpus.take("train-2", 2) == (1, 2)
    gpus.give("train-1")
    assert isinstance(gpus.take("train-3", 2), Busy)
    assert gpus.take("train-4") == (0,)
    with pytest.raises(ConfigError, match="processes is 4"):
        gpus.take("train-5", 4)


def test_a_gpu_rests_between_runs(tmp_path: Path) -> None:
    gpus = pool(FakeNvml(count=1), tmp_path, cooldown=60.0)
    assert gpus.take("train-1") == (0,)
    gpus.give("train-1")
    assert "cooling down" in str(gpus.take("train-2"))


# --- Launches -------------------------------------------------------------------------------------------------------


def machine(fake: FakeNvml, folder: Path) -> dict[str, Any]:
    return {"cores": 4, "nvml": Nvml(fake), "leases": Leases(folder)}


def arms(count: int, **values: Any) -> list[Any]:
    return [
        experiment(f"E{n}", stage("prepare"), stage("train", "prepare", tag=f"{n}", **values)) for n in range(count)
    ]


def test_one_run_a_gpu_and_none_for_what_needs_none(lab: Lab) -> None:
    lab.ask(*arms(4, steps=5, seconds=0.02))
    assert lab.launch(devices=None, machine=machine(FakeNvml(), lab.root / "leases")).exit_code == 0
    orders = [lab.run(f"E{n}").read_order() for n in range(4)]
    assert {order.resources.devices for order in orders if order} == {(0,), (1,)}
    prepare = lab.run("E0", "prepare").read_order()
    assert prepare is not None and prepare.resources.devices == ()
    by_gpu: dict[Any, list[tuple[float, int]]] = {}
    for name, change in (("starts", 1), ("ends", -1)):
        for line in read_lines(lab.store.root / f"{name}.jsonl"):
            order = lab.store.run(line["run"]).read_order()
            if order is not None and order.resources.devices:
                by_gpu.setdefault(order.resources.devices, []).append((line["t"], change))
    for changes in by_gpu.values():
        assert [change for _, change in sorted(changes)] == [1, -1] * (len(changes) // 2)
    assert not any(json.loads(p.read_text())["leases"] for p in (lab.root / "leases").glob("*.json"))


def test_a_launch_waits_for_a_gpu_and_says_whose_it_is(lab: Lab, stranger: int, eventually: Callable[..., Any]) -> None:
    fake = FakeNvml(count=1, processes={0: [Process(stranger, GIB)]})
    lab.ask(*arms(1))
    thread = threading.Thread(target=lambda: (eventually(lambda: lab.heard("waiting")), fake.processes.clear()))
    thread.start()
    assert lab.launch(devices=None, machine=machine(fake, lab.root / "leases")).exit_code == 0
    thread.join()
    assert "waiting: GPU 0 is used by" in lab.texts() and str(stranger) in lab.texts()
    assert lab.kinds().count("waiting") == 1


def test_the_lease_is_the_workers_while_it_works(lab: Lab, eventually: Callable[..., Any]) -> None:
    lab.ask(*arms(1, gate=True))
    leases, seen = Leases(lab.root / "leases"), []

    def look() -> None:
        eventually(lambda: (state := lab.run("E0").read_state()) is not None and state.step >= 2)
        eventually(lambda: [held.pid for held in leases.holders("GPU-0000")] == lab.pids()[-1:])
        seen.append(leases.holders("GPU-0000")[0].run)
        lab.open_gate()

    thread = threading.Thread(target=look)
    thread.start()
    lab.launch(devices=None, machine=machine(FakeNvml(count=1), lab.root / "leases"))
    thread.join()
    assert seen == [lab.run("E0").name]


def test_two_launches_never_share_a_gpu(lab: Lab) -> None:
    """Two studies in two stores on one machine: the leases keep them apart."""
    other = Lab(lab.root / "other")
    (lab.root / "other" / "lab").mkdir(parents=True)
    (other.store.root / "sources").symlink_to((lab.store.root / "sources").resolve())
    lab.ask(*arms(3, steps=3, seconds=0.01))
    other.ask(*arms(3, steps=3, seconds=0.01))
    fake, folder = FakeNvml(count=1), lab.root / "leases"
    thread = threading.Thread(target=lambda: other.launch(devices=None, machine=machine(fake, folder)))
    thread.start()
    assert lab.launch(devices=None, machine=machine(fake, folder)).exit_code == 0
    thread.join()
    times = []
    for one in (lab, other):
        for n in range(3):
            events = {
                name: {line["run"]: line["t"] for line in read_lines(one.store.root / f"{name}.jsonl")}
                for name in ("starts", "ends")
            }
            run = one.run(f"E{n}").name
            times.append((events["starts"][run], events["ends"][run]))
    times.sort()
    assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(times))
