"""Which split a document belongs to, from its content alone.

A document's place is a hash of its text and the division's seed: it depends on no other document, no order and no
number of processes, and two copies of a text always land in the same split, so that no validation text was trained on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ablab.contract.failure import ConfigError
from ablab.data.sources import Split


@dataclass(frozen=True, kw_only=True)
class Division:
    """Shares of the documents that go to validation and test; the rest trains.

    Args:
        validation: expected share of the documents, 0 to 1; 0 divides nothing off.
        test: the same for the test split.
        seed: another seed is another division.
    """

    validation: float
    test: float
    seed: int = 2357

    def __post_init__(self) -> None:
        if self.validation < 0 or self.test < 0 or self.validation + self.test >= 1:
            raise ConfigError(
                f"shares validation {self.validation} and test {self.test} must be at least 0 and leave some to train"
            )

    def split(self, text: bytes) -> Split:
        """Return the split of a document given as UTF-8."""
        key = self.seed.to_bytes(16, "big")
        digest = hashlib.blake2b(text, digest_size=8, key=key).digest()
        place = int.from_bytes(digest, "big") / 2**64
        if place < self.validation:
            return "val"
        return "test" if place < self.validation + self.test else "train"
