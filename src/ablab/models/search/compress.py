"""Make a smaller index out of an exact one: 8 bits a number, or centroids and residuals of a few bits."""

from __future__ import annotations

import os
from typing import Literal

import torch
from torch import Tensor

from ablab.contract.failure import ConfigError
from ablab.models.search.codes import Residual, default_centroids, learn_residual, sample_size
from ablab.models.search.files import Index, IndexWriter, open_index


def compress(
    index: Index,
    folder: str | os.PathLike[str],
    *,
    kind: Literal["8-bit", "residual"],
    bits: int = 4,
    centroids: int | None = None,
    seed: int = 0,
) -> Index:
    """Write a compressed index of the same passages and return it.

    Args:
        index: an exact index.
        folder: where.
        kind: 8-bit, or residual.
        bits: of a number of a residual: 1, 2, 4 or 8.
        centroids: of a residual index; None takes about 4 times the root of the number of vectors.
        seed: draws the sample that centroids are learnt from, and where they start.

    Raises:
        ConfigError: the index is not exact, or bits do not fit.
    """
    codec: Residual | None = None
    if kind == "residual":
        count = centroids or default_centroids(index.passages * index.vectors)
        try:
            codec = learn_residual(_sample(index, sample_size(count), seed), bits=bits, centroids=count, seed=seed)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    with IndexWriter(folder, kind=kind, codec=codec, facts={"of": index.content["facts"]}) as writer:
        for passages in index.passages_by_shard():
            writer.add(passages)
    return open_index(folder)


def _sample(index: Index, size: int, seed: int) -> Tensor:
    """Return about `size` vectors of the index, drawn evenly over its shards."""
    generator = torch.Generator().manual_seed(seed)
    share = min(1.0, size / (index.passages * index.vectors))
    parts = []
    for passages in index.passages_by_shard():
        vectors = passages.flatten(0, 1)
        wanted = max(1, round(share * len(vectors)))
        parts.append(vectors[torch.randperm(len(vectors), generator=generator)[:wanted]])
    return torch.cat(parts)
