"""Named random streams: each use of randomness draws from its own stream, so paired arms see the same data order.

Streams are stateless: the seed of step n of a stream is a function of (seed, name, n). Resuming needs no saved
generator state, and splitting a batch or skipping a validation shifts nothing.
"""

from __future__ import annotations

import hashlib

#: The names in use; a new use of randomness gets a new name rather than sharing one.
STREAMS = ("initialisation", "data-order", "dropout", "positives", "augmentation", "split", "bootstrap")


def stream_seed(seed: int, stream: str, *position: int) -> int:
    """Return a 63-bit seed for `stream` at `position` (for example epoch, or step and micro-batch)."""
    text = "/".join((str(seed), stream, *map(str, position)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
