import errno

import pytest
import torch

from ablab.contract.failure import (
    ConfigError,
    DataError,
    DiskFullError,
    NotFiniteError,
    OutOfMemoryError,
    StopRequested,
)
from ablab.training.memory import naming_size
from ablab.worker.failures import classify

GIB = 1 << 30


def chained(outer, inner):
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "out-of-memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
         "out-of-memory"),
        (RuntimeError("std::bad_alloc"), "out-of-memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out-of-memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out-of-memory"),
        (OutOfMemoryError("with 8", micro_batch=8), "out-of-memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk-full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk-full"),
        (DiskFullError("full"), "disk-full"),
        (chained(RuntimeError("could not write"), OSError(errno.ENOSPC, "No space left on device")), "disk-full"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk-full"),
        (NotFiniteError("step 3"), "not-finite"),
        (DataError("row 7"), "data"),
        (ConfigError("pattern"), "config"),
        (StopRequested("bye"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (ZeroDivisionError("division by zero"), "crash"),
        (OSError(errno.EIO, "Input/output error"), "crash"),
        (ValueError("out of memory is what this text is about"), "crash"),
    ],
)  # fmt: skip
def test_each_exception_has_its_kind(error, kind):
    failure = classify(error)
    assert failure.kind == kind
    assert failure.traceback == (kind == "crash") and "\n" not in failure.message


def test_gpu_memory_that_others_hold_is_waited_for():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
    assert classify(error, foreign=lambda: 10 * GIB).kind == "memory-taken"
    assert classify(error, foreign=lambda: 0).kind == "out-of-memory"
    with pytest.raises(OutOfMemoryError) as caught, naming_size("micro_batch", 4):
        raise error
    assert classify(caught.value, foreign=lambda: 10 * GIB).detail == {"micro_batch": 4, "foreign_bytes": 10 * GIB}
    assert classify(caught.value, foreign=lambda: 0).kind == "out-of-memory"


def test_memory_of_the_machine_is_never_blamed_on_a_gpu():
    assert classify(MemoryError(), foreign=lambda: 10 * GIB).kind == "out-of-memory"


def test_the_detail_of_an_error_is_kept():
    assert classify(DataError("row", file="a.csv", row=7)).detail == {"file": "a.csv", "row": 7}


def test_only_allocation_failures_are_named_by_size():
    with pytest.raises(ValueError, match="mine"), naming_size("micro_batch", 4):
        raise ValueError("mine")
