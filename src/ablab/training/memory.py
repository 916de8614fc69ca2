"""What ran out of memory, with its size, and our memory told from other processes'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ablab.contract.failure import OutOfMemoryError
from ablab.contract.memory import is_out_of_memory

#: Memory of other processes on our GPU beyond which it is they who took it (a CUDA context alone is about half).
FOREIGN_BYTES = 1 << 30


def foreign_gpu_bytes() -> int:
    """Return the bytes of the current GPU that neither we nor our CUDA context hold; 0 without a GPU in use."""
    if not torch.cuda.is_initialized():
        return 0
    free, total = torch.cuda.mem_get_info()
    return max(0, total - free - torch.cuda.memory_reserved())


@contextmanager
def naming_size(name: str, size: int, **more: object) -> Iterator[None]:
    """Turn an allocation failure of the enclosed work into an OutOfMemoryError with {name: size, **more} as detail."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
            raise
        first = str(error).strip().splitlines()
        raise OutOfMemoryError(
            f"memory ran out with {name} {size}: {first[0] if first else type(error).__name__}", **{name: size, **more}
        ) from error
