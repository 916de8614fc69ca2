"""What runs on this machine, by the names that results carry, so that a forecast compares like with like.

Taking devices is `ablab.launch.devices`'s.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablab.store.snapshot import cpu_name
from ablab.study.schema import Stage

#: There on every Linux machine with a driver; without it, NVML is not even imported.
_DRIVER = Path("/dev/nvidiactl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """What runs here: name of the processor, name of the GPUs and their number."""

    cpu: str
    gpu: str = ""
    gpus: int = 0

    def of(self, stage: Stage) -> str:
        """Return the name of the device that a stage runs on."""
        return self.gpu if self.gpus and stage.spec.accelerator else self.cpu


def devices(library: Any = None) -> Devices:
    """Return the devices that this process may use.

    Args:
        library: module or object with pynvml's functions; None imports pynvml where there is a driver.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if visible is None else [part for part in visible.split(",") if part.strip() not in ("", "-1")]
    if chosen == [] or (library is None and not _DRIVER.exists()):
        return Devices(cpu=cpu_name())
    names = _gpu_names(library)
    count = len(names) if chosen is None else min(len(names), len(chosen))
    return Devices(cpu=cpu_name(), gpu=names[0] if count else "", gpus=count)


def _gpu_names(library: Any) -> list[str]:
    """Return the names of the GPUs that NVML shows; none where it does not work."""
    if library is None:
        library = importlib.import_module("pynvml")
    try:
        library.nvmlInit()
    except library.NVMLError:
        return []
    try:
        handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
        names = [library.nvmlDeviceGetName(handle) for handle in handles]
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    except library.NVMLError:
        return []
    finally:
        library.nvmlShutdown()
