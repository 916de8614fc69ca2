"""What a run ran on: environment and git state, and the door to the frozen source (`ablab.store.source`).

No library is imported that is reported on.

Everything that is returned has passed `ablab.store.redact`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ablab.store.processes import cores
from ablab.store.redact import redact
from ablab.store.retention import disk_free
from ablab.store.source import freeze_source

__all__ = ["NOT_A_REPOSITORY", "NOT_INSTALLED", "cpu_name", "environment", "freeze_source", "git_state", "version"]

NOT_INSTALLED = "not installed"
NOT_A_REPOSITORY = "not a git repository"

#: Libraries whose version can change a number or explain a failure.
LIBRARIES = (
    "torch",
    "numpy",
    "transformers",
    "tokenizers",
    "datasets",
    "accelerate",
    "peft",
    "safetensors",
    "bitsandbytes",
    "flash-attn",
    "deepspeed",
    "triton",
    "scipy",
    "pydantic",
    "huggingface-hub",
    "ray",
    "submitit",
    "ablab",
)  # fmt: skip
_VARIABLES = re.compile(
    r"(OMP|MKL|KMP|OPENBLAS|GOMP|CUDA|CUBLAS|NCCL|TORCH|PYTORCH|HF|TRANSFORMERS|SLURM|ABLAB|RAY|TOKENIZERS)_\w+|PYTHONHASHSEED"
)


def environment(*, store: str | os.PathLike[str] = ".") -> dict[str, Any]:
    """Return a snapshot of machine, libraries and the variables that matter to them, as JSON values.

    Args:
        store: a path on the disk whose size and free space are told.

    Keys: time, host, os, kernel, python, executable, cpu {name, cores, physical}, memory (bytes), disk {total, free},
    gpus [{index, name, memory, uuid}], driver, cuda, libraries {name: version or "not installed"}, cudnn, variables.
    """
    gpus, driver, cuda = _gpus()
    return {
        "format": 1,
        "time": time.time(),
        "host": platform.node(),
        "os": _os_name(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "cpu": {"name": cpu_name(), "cores": cores(), "logical": os.cpu_count(), "machine": platform.machine()},
        "memory": _memory(),
        "disk": {"free": disk_free(store), "total": shutil.disk_usage(_existing(store)).total},
        "gpus": gpus,
        "driver": driver,
        "cuda": cuda,
        "cudnn": _first_version("nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "nvidia-cudnn-cu11"),
        "libraries": {name: version(name) for name in LIBRARIES},
        "variables": redact({n: v for n, v in sorted(os.environ.items()) if _VARIABLES.fullmatch(n)}),
    }


def version(name: str) -> str:
    """Return the version of an installed library without importing it, or "not installed"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED


def _first_version(*names: str) -> str:
    return next((found for name in names if (found := version(name)) != NOT_INSTALLED), NOT_INSTALLED)


def cpu_name() -> str:
    """Return the processor's name as its maker sells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _os_name() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return platform.system()


def _existing(path: str | os.PathLike[str]) -> Path:
    """Return the nearest folder above a path that exists."""
    path = Path(path).resolve()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _gpus() -> tuple[list[dict[str, Any]], str | None, str | None]:
    """Return the GPUs, the driver's version and the CUDA version it supports; nothing where there is no driver."""
    try:
        import pynvml
    except ImportError:
        return [], None, None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return [], None, None
    try:
        gpus = [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        number = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        return gpus, _text(pynvml.nvmlSystemGetDriverVersion()), f"{number // 1000}.{number % 1000 // 10}"
    except pynvml.NVMLError:
        return [], None, None
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return {
        "index": index,
        "name": _text(nvml.nvmlDeviceGetName(handle)),
        "memory": int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        "uuid": _text(nvml.nvmlDeviceGetUUID(handle)),
        "capability": f"{major}.{minor}",
    }


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def git_state(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the git state of a folder: repository, branch, commit, dirty, changed files and a summary of the diff.

    A folder outside any repository (or a machine without git) gives {"state": "not a git repository"}.
    """
    root, error = _git(folder, "rev-parse", "--show-toplevel")
    if root is None:
        reason = error.splitlines()[0] if "dubious ownership" in error or "git is" in error else NOT_A_REPOSITORY
        return {"state": reason.removeprefix("fatal: ")}
    status = _git(folder, "status", "--porcelain", "--untracked-files=normal")[0] or ""
    state: dict[str, Any] = {
        "state": "dirty" if status else "clean",
        "repository": root,
        "remote": _git(folder, "config", "--get", "remote.origin.url")[0],
        "branch": _git(folder, "symbolic-ref", "--short", "-q", "HEAD")[0] or "detached",
        "commit": _git(folder, "rev-parse", "-q", "--verify", "HEAD")[0] or "no commit yet",
        "dirty": bool(status),
        "changed": status.splitlines()[:200],
        "diff": (_git(folder, "diff", "--shortstat", "HEAD")[0] or "").strip(),
    }
    cleaned: dict[str, Any] = redact(state)
    return cleaned


def _git(folder: str | os.PathLike[str], *command: str) -> tuple[str | None, str]:
    """Return what a git command printed, None when it failed; and its error."""
    variables = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(folder), *command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            env=variables,
            check=False,
        )
    except FileNotFoundError:
        return None, "git is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return (done.stdout.rstrip("\n") if done.returncode == 0 else None), done.stderr
