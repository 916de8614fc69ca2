"""Telling out-of-memory from other errors by what they say; no torch needed."""

from __future__ import annotations

from ablab.contract.failure import OutOfMemoryError

#: What allocators say when memory runs out: torch's (CPU and GPU), the C++ and C libraries, cuBLAS, cuDNN.
_SAYS = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "std::bad_alloc",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "unable to allocate",
    "could not create a memory object",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that an allocation failed."""
    if isinstance(error, MemoryError | OutOfMemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if not isinstance(error, RuntimeError | OSError):
        return False
    text = str(error).lower()
    return any(words in text for words in _SAYS)
