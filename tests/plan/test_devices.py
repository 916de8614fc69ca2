"""Devices of a machine with and without GPUs, on a fake NVML."""

from __future__ import annotations

from typing import Any

import pytest

from ablab.plan.devices import devices
from ablab.store.snapshot import cpu_name


class FakeNvml:
    class NVMLError(Exception):
        pass

    def __init__(self, names: list[Any], *, works: bool = True) -> None:
        self.names, self.works, self.open = names, works, 0

    def nvmlInit(self) -> None:
        if not self.works:
            raise self.NVMLError
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> Any:
        if self.names[handle] is None:
            raise self.NVMLError
        return self.names[handle]


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 3), ("", 0), ("-1", 0), ("1", 1), ("0,2", 2), ("0,1,2,3,4", 3), (" 0 , 1 ", 2)]
)
def test_the_gpus_one_may_see(monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    library = FakeNvml([b"NVIDIA A100", "NVIDIA A100", "NVIDIA A100"])
    found = devices(library)
    assert (found.cpu, found.gpu, found.gpus) == (cpu_name(), "NVIDIA A100" if count else "", count)
    assert library.open == 0


@pytest.mark.parametrize("library", [FakeNvml([]), FakeNvml(["x"], works=False), FakeNvml([None])])
def test_without_a_working_driver_there_is_the_processor(monkeypatch: pytest.MonkeyPatch, library: FakeNvml) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices(library).gpus == 0 and library.open == 0


def test_stages_that_want_no_accelerator_run_on_the_processor(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = devices(FakeNvml(["H100"]))
    assert found.of(toy.stage("train")) == "H100" and found.of(toy.stage("prepare")) == cpu_name()
