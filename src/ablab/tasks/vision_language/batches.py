"""A mixture of conversations as the loop reads it: samples with tokens and pixels, read from disk as they are needed.

A batch is a list of samples; how many rows they are packed into is decided where they are used (`collate`), so that a
micro-batch is any part of a batch and adds up.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablab.contract.failure import DataError
from ablab.data.images import Framing, load_all
from ablab.data.multimodal import Packed, batching_order, pack
from ablab.data.templates import IGNORE, Encoded, Encoder
from ablab.data.tiling import Tiling
from ablab.tasks.vision_language.features import FeatureFile
from ablab.tasks.vision_language.sets import Mixture
from ablab.training.task import Batch

#: Characters of a token, for lengths before anything is tokenised.
_CHARACTERS = 4
#: Tokens of a packed row where the study names none.
ROW_TOKENS = {"cpu": 256, "cuda": 4096}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One conversation: tokens, language, pictures as uint8 (n, 3, S, S) or as cached features (n, F, V)."""

    encoded: Encoded
    pixels: np.ndarray | None = None
    features: np.ndarray | None = None
    language: str = ""


class Conversations:
    """A mixture with random access (`ablab.training.task.Data`).

    Args:
        mixture: rows.
        encoder: conversations to tokens.
        framing: pictures to pixels; None for text alone.
        batch: samples a step, for the order.
        grouped: draw batches of like length and number of images.
        blind: show a picture of one colour instead of every image.
        decoders: threads that decode.
        cached: features of the mixture's pictures, instead of pixels.
        everything: supervise every token, not the assistant's alone.
        tiling: how pictures are cut into tiles; None takes each whole.
    """

    def __init__(
        self,
        mixture: Mixture,
        encoder: Encoder,
        framing: Framing | None,
        *,
        batch: int = 1,
        grouped: bool = False,
        blind: bool = False,
        decoders: int = 1,
        cached: FeatureFile | None = None,
        everything: bool = False,
        tiling: Tiling | None = None,
    ) -> None:
        self._tiling = tiling
        self.mixture, self.encoder, self.framing = mixture, encoder, framing
        self.samples = len(mixture)
        self._batch, self._grouped, self._blind, self._everything = batch, grouped, blind, everything
        self._cached = cached
        self._pool = ThreadPoolExecutor(decoders, "ablab-decode") if decoders > 1 and framing is not None else None

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return all sample ids of an epoch, int64 (samples,)."""
        lengths = self.mixture.characters // _CHARACTERS + self.mixture.images * self.encoder.image_tokens
        kinds = self.mixture.images if self._grouped else np.zeros_like(self.mixture.images)
        window = 32 if self._grouped else 1
        return batching_order(lengths, kinds, batch=self._batch, seed=seed, epoch=epoch, window=window)

    def batch(self, ids: np.ndarray, *, seed: int, step: int) -> Batch:
        """Return the samples of these ids, as the list `samples`."""
        return {"samples": [self.sample(int(i)) for i in ids], "step": step}

    def weight(self, batch: Batch) -> float:
        """Return the number of targets."""
        return float(sum(sample.encoded.targets for sample in batch["samples"]))

    def sample(self, number: int) -> Sample:
        """Return one sample.

        Raises:
            DataError: a picture is missing or broken; the message has set, row and name.
        """
        rows, row = self.mixture.place(number)
        conversation = rows.conversation(row)
        tiles = None
        if self._tiling is not None and conversation.images:
            tiles = [self._tiling.count(*rows.source.size(name)) for name in conversation.images]
        encoded = self.encoder.encode(conversation, tiles=tiles)
        if self._everything:
            encoded = Encoded(ids=encoded.ids, labels=encoded.ids.copy(), images=encoded.images, lost=encoded.lost)
        if not encoded.images or self.framing is None:
            return Sample(encoded=encoded, language=rows.language(row))
        if self._cached is not None:
            features = np.stack([self._cached.read(rows.name, name) for name in encoded.images])
            return Sample(encoded=encoded, features=features, language=rows.language(row))
        try:
            pixels = load_all(self._loader(rows), encoded.images, pool=self._pool)
        except DataError as error:
            raise DataError(f"set {rows.name} row {row + 1}: {error}", **error.detail | {"row": row + 1}) from error
        return Sample(encoded=encoded, pixels=np.concatenate(pixels), language=rows.language(row))

    def _loader(self, rows: Any) -> Any:
        framing, tiling = self.framing, self._tiling
        assert framing is not None
        if self._blind:
            return lambda name: np.stack([framing.blank()] * (tiling.count(*rows.source.size(name)) if tiling else 1))
        return lambda name: framed(rows.source.open(name), framing, tiling)


def framed(image: Any, framing: Framing, tiling: Tiling | None) -> np.ndarray:
    """Return a picture as the tower's squares, uint8 (tiles, 3, S, S)."""
    if tiling is None:
        return framing.frame(image)[None]
    return np.stack([framing.frame(tile) for tile in tiling.cut(image)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """What a model is given of some samples.

    Args:
        packed: tokens in rows.
        pixels: uint8 (N, 3, S, S) of all pictures, in the order of the rows; None where there are none.
        features: cached features (N, F, V) instead.
        languages: of the samples, in the order of the rows.
    """

    packed: Packed
    pixels: Tensor | None
    features: Tensor | None
    languages: tuple[str, ...] = ()

    def spoken(self, names: Sequence[str]) -> Tensor:
        """Return the number of each token's language among `names`, int64 (R, T); padding has the first.

        Raises:
            DataError: a sample in a language that is not among them.
        """
        wrong = sorted(set(self.languages) - set(names))
        if wrong:
            raise DataError(
                f"language experts are {', '.join(names)}, and a sample is in {wrong[0] or 'none that it says'}"
            )
        numbers = torch.tensor([0, *(names.index(language) for language in self.languages)])
        segments = self.packed.segments.long()
        before = torch.cat([torch.zeros(1, dtype=torch.long), segments.amax(1).cumsum(0)[:-1]])
        return numbers[torch.where(segments > 0, segments + before[:, None], 0)]


def collate(samples: Sequence[Sample], *, pad: int, row_tokens: int, packing: bool = True) -> Rows:
    """Return samples in packed rows, or each in a row of its own, padded to the longest."""
    encoded = [sample.encoded for sample in samples]
    packed = pack(encoded, row_tokens=row_tokens, pad=pad) if packing else padded(encoded, pad=pad)
    pixels = [p for i in packed.order if (p := samples[i].pixels) is not None]
    features = [f for i in packed.order if (f := samples[i].features) is not None]
    return Rows(
        packed=packed,
        pixels=torch.from_numpy(np.concatenate(pixels)) if pixels else None,
        features=torch.from_numpy(np.concatenate(features)) if features else None,
        languages=tuple(samples[i].language for i in packed.order),
    )


def padded(samples: Sequence[Encoded], *, pad: int) -> Packed:
    """Return one row a sample, padded on the right to the longest."""
    width = max(len(sample) for sample in samples)
    ids = np.full((len(samples), width), pad, np.int64)
    labels = np.full((len(samples), width), IGNORE, np.int64)
    segments = np.zeros((len(samples), width), np.int32)
    for row, sample in enumerate(samples):
        ids[row, : len(sample)] = sample.ids
        labels[row, 1 : len(sample)] = sample.labels[1:]
        segments[row, : len(sample)] = 1
    positions = np.broadcast_to(np.arange(width), ids.shape).copy()
    made = (torch.from_numpy(array) for array in (ids, labels, positions, segments))
    named = dict(zip(("ids", "labels", "positions", "segments"), made, strict=True))
    return Packed(**named, order=tuple(range(len(samples))))
