"""The numerics record: what may change bits but not the experiment, decided once and kept when a run resumes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch.utils import deterministic

from ablab.contract.order import Numerics, Order
from ablab.store.files import read_json, write_json
from ablab.store.layout import RunFolder
from ablab.store.snapshot import cpu_name, version
from ablab.training.distribution import world_size
from ablab.training.precision import resolve

#: Libraries whose version may change results.
LIBRARIES = ("torch", "numpy", "safetensors", "tokenizers", "transformers")
NAME = "numerics.json"


def select_device(order: Order) -> torch.device:
    """Return the device of this process: one of the leased GPUs, else the CPU.

    The leased GPUs are the only ones this process will see. Where the executor has narrowed them already (SLURM, Ray),
    its choice stands.
    """
    devices = order.resources.devices
    if not devices:
        return torch.device("cpu")
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def configure(order: Order) -> None:
    """Set threads and deterministic algorithms; called before the first tensor operation of the process."""
    threads = order.numerics.threads if order.numerics else order.resources.threads
    torch.set_num_threads(threads)
    # cuBLAS is deterministic only with a fixed workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if order.parameters.get("compile"):
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:
        # The same without telling the compiler, whose import takes a second that every short run would pay.
        torch.set_deterministic_debug_mode("warn")
    # Filling fresh memory with NaN would find reads of uninitialised memory, at the price of writing all of it twice.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property set on the module


def decide(order: Order, device: torch.device) -> Numerics:
    """Return the record of this attempt: the order's where it resumes on the same kind of device, else a new one."""
    kept = order.numerics if order.numerics is not None and order.numerics.device == device.type else None
    wanted = _precision(order, device.type)
    return Numerics(
        threads=torch.get_num_threads(),
        device="cuda" if device.type == "cuda" else "cpu",
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        precision=(kept and kept.precision) or resolve(wanted, device),
        compile=kept.compile if kept else bool(order.parameters.get("compile", False)),
        attention=kept.attention if kept else "auto",
        world_size=world_size(),
        versions={name: version(name) for name in LIBRARIES},
    )


def _precision(order: Order, device: str) -> str:
    """Return the precision the parameters ask for; a stage that has none computes as the run it reads did.

    A run that trained speaks before others, and one that asked for no precision and read no run (prepared data) does
    not speak at all: its record says what was the default where it ran.
    """
    wanted = order.parameters.get("precision")
    if isinstance(wanted, str):
        return wanted
    found: dict[bool, str] = {}
    for given in order.inputs:
        run = RunFolder(given.path)
        result, earlier = run.read_result(), run.read_order()
        if result is None or earlier is None or not result.numerics.precision or result.numerics.device != device:
            continue
        asked = isinstance(earlier.parameters.get("precision"), str)
        if asked or earlier.inputs:
            found.setdefault(asked, result.numerics.precision)
    return found.get(True) or found.get(False) or "auto"


def write(folder: Path, numerics: Numerics) -> None:
    """Write the record of an attempt."""
    write_json(folder / NAME, {"format": 1, **numerics.model_dump()}, sync=False)


def changes(run: RunFolder, numerics: Numerics) -> dict[str, list[Any]]:
    """Return what differs from the first attempt's record: {field: [then, now]}."""
    for number in run.attempts():
        try:
            first = read_json(run.attempt(number).path / NAME)
        except FileNotFoundError:
            continue
        now = numerics.model_dump()
        return {name: [first[name], now[name]] for name in now if name in first and first[name] != now[name]}
    return {}
