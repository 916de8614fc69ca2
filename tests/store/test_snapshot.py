"""Snapshots of machine and git: true, without secrets, without importing what they report on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from ablab.store.redact import HIDDEN
from ablab.store.snapshot import NOT_A_REPOSITORY, NOT_INSTALLED, environment, git_state, version


def git(folder: Path, *command: str) -> str:
    names = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", "-C", str(folder), *names, *command], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_environment_is_true_and_json(tmp_path: Path) -> None:
    found = environment(store=tmp_path / "not" / "there")
    assert json.loads(json.dumps(found)) == found
    assert found["libraries"]["pydantic"] == importlib.metadata.version("pydantic")
    assert 1 <= found["cpu"]["cores"] <= len(os.sched_getaffinity(0)) and found["cpu"]["name"]
    assert found["memory"] > 1 << 28 and 0 < found["disk"]["free"] <= found["disk"]["total"]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))


def test_what_is_not_installed_is_said() -> None:
    assert version("no-such-library-anywhere") == NOT_INSTALLED


def test_no_reported_library_is_imported() -> None:
    code = (
        "import sys; from ablab.store.snapshot import environment; names = set(environment()['libraries']);"
        "print([n for n in names - {'pydantic', 'ablab'} if n.replace('-', '_') in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_variables_that_matter_are_kept_without_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "abcdefgh1234")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HOME", "/x/abcdefgh1234/y")
    monkeypatch.setenv("UNRELATED", "1")
    found = environment()["variables"]
    assert found["OMP_NUM_THREADS"] == "1" and found["HF_TOKEN"] == HIDDEN and "UNRELATED" not in found
    assert "abcdefgh1234" not in json.dumps(found)


class FakeNVML(types.ModuleType):
    """Two GPUs as NVML tells of them."""

    class NVMLError(Exception):
        """As NVML's."""

    def __init__(self, *, driver: bool) -> None:
        super().__init__("pynvml")
        self.driver, self.open = driver, 0

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12080

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"570.1"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return 9, 0

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "H100"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(total=80 << 30)


def test_gpus_driver_and_cuda_come_from_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNVML(driver=True)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    found = environment()
    assert [(g["index"], g["name"], g["memory"], g["uuid"], g["capability"]) for g in found["gpus"]] == [
        (0, "H100", 80 << 30, "GPU-0", "9.0"),
        (1, "H100", 80 << 30, "GPU-1", "9.0"),
    ]
    assert (found["driver"], found["cuda"], fake.open) == ("570.1", "12.8", 0)


@pytest.mark.parametrize("module", [None, FakeNVML(driver=False)])
def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)
    found = environment()
    assert found["gpus"] == [] and found["driver"] is None


def test_git_state_over_the_life_of_a_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {"state": NOT_A_REPOSITORY} == git_state(tmp_path / "absent")
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("x = 1\n")
    fresh = git_state(tmp_path)
    assert fresh["commit"] == "no commit yet" and fresh["dirty"] and fresh["changed"] == ["?? a.py"]
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-qm", "one")
    git(tmp_path, "remote", "add", "origin", "https://me:hunter22@example.org/x.git")
    clean = git_state(tmp_path)
    assert clean["state"] == "clean" and clean["commit"] == git(tmp_path, "rev-parse", "HEAD")
    assert clean["branch"] == "main" and clean["remote"] == f"https://me:{HIDDEN}@example.org/x.git"
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_text("x = 2\ny = 3\n")
    dirty = git_state(tmp_path / "sub")
    assert dirty["state"] == "dirty" and dirty["diff"] == "1 file changed, 2 insertions(+), 1 deletion(-)"
    git(tmp_path, "checkout", "-q", "--detach")
    assert git_state(tmp_path)["branch"] == "detached"


def test_without_git_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == {"state": "git is not installed"}
