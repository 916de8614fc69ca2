"""Sensors: what there is is told, what is not is left out, and nothing of it can fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from ablab.report.machine import Sensors


class FakeNvml:
    """Two GPUs: one tells everything, one next to nothing; a third fell off the bus."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 2:
            raise self.NVMLError("lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=5 * 2**30, total=80 * 2**30)

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:
        return b"H100" if handle == 0 else "old"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle == 1:
            raise self.NVMLError("not supported")
        return SimpleNamespace(gpu=93)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if handle == 1:
            raise self.NVMLError("not supported")
        return 350_500


def test_gpus_tell_what_they_can(tmp_path: Path) -> None:
    first, second = Sensors(tmp_path, nvml=FakeNvml()).look().gpus
    assert (first.name, first.busy, first.temperature, first.power) == ("H100", 93, 61, 350.5)
    assert (second.name, second.busy, second.power) == ("old", None, None)


def test_a_driver_that_does_not_open_means_no_gpus(tmp_path: Path) -> None:
    broken = FakeNvml()
    broken.nvmlInit = lambda: (_ for _ in ()).throw(FakeNvml.NVMLError())  # type: ignore[method-assign]
    assert Sensors(tmp_path, nvml=broken).look().gpus == ()


def test_the_machine_agrees_with_the_system(tmp_path: Path) -> None:
    found = Sensors(tmp_path / "not" / "there" / "yet").look()
    assert found.memory == psutil.virtual_memory().total
    assert 0 < found.used < found.memory
    assert 0 < found.free <= found.disk
    assert 0 <= found.busy <= 1


def test_the_hottest_sensor_is_told_and_a_machine_without_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chips = {
        "acpi": [SimpleNamespace(current=20.0)],
        "cpu": [SimpleNamespace(current=71.5), SimpleNamespace(current=None)],
    }
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: chips, raising=False)
    assert Sensors(tmp_path).look().temperature == ("cpu", 71.5)
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: {}, raising=False)
    assert Sensors(tmp_path).look().temperature is None
    monkeypatch.delattr(psutil, "sensors_temperatures")
    assert Sensors(tmp_path).look().temperature is None
