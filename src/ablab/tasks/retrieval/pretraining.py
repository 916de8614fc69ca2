"""Pretraining of small towers: image and text of a passage found from each other among those of a batch, as CLIP is.

It stands for the weights that the full profile loads by name, and sees the train split alone. The image is the
passage's or one of a query about it, drawn anew at every step; texts of one image are positives of each other. Where
asked for, another drawing of the same is found too: image from image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablab.contract.base import Strict
from ablab.contract.context import Context
from ablab.contract.failure import ConfigError, DataError
from ablab.contract.order import Input, Resources
from ablab.contract.result import Outcome
from ablab.contract.seeds import stream_seed
from ablab.data.augmentation import augment
from ablab.data.pairs import Pairs
from ablab.models.gradient_cache import encode_in_chunks
from ablab.models.retriever import Temperature
from ablab.models.taps import TappedTower
from ablab.tasks.retrieval.building import Builder
from ablab.tasks.retrieval.config import Pretrain
from ablab.tasks.retrieval.objective import Objective
from ablab.tasks.retrieval.preparation import open_pairs
from ablab.tasks.retrieval.sections import Towers
from ablab.tasks.retrieval.task import part
from ablab.tasks.retrieval.texts import Texts
from ablab.training.accumulation import split as chunks_of
from ablab.training.memory import naming_size
from ablab.training.task import Batch, Losses


class TowerPair(nn.Module):
    """Both towers, each with a linear head over the mean of its last states."""

    def __init__(self, text: TappedTower, vision: TappedTower, *, width: int, temperature: float) -> None:
        super().__init__()
        self.text, self.vision = text, vision
        self.text_head = nn.Linear(text.widths[-1], width, bias=False)
        self.vision_head = nn.Linear(vision.widths[-1], width, bias=False)
        self.scale = Temperature(temperature, learnable=True)

    def encode(self, role: str, items: Mapping[str, Tensor]) -> Tensor:
        """Return normalised vectors (B, 1, width) of texts or images."""
        if role == "text":
            last = self.text(**items)[-1]
            words = items["mask"].to(last.dtype)[..., None]
            vectors = self.text_head((last * words).sum(1) / words.sum(1))
        else:
            vectors = self.vision_head(self.vision(**items)[-1].mean(1))
        return F.normalize(vectors.float(), dim=-1)[:, None]


class TowerPretraining:
    """The compute-plane half of the stage kind pretrain; arguments as `Retrieval`."""

    def __init__(
        self,
        sections: Mapping[str, Strict],
        *,
        inputs: Iterable[Input] = (),
        study_folder: str | None = None,
        parameters: Any = None,
        resources: Resources | None = None,
        revisions: Mapping[str, str] | None = None,
    ) -> None:
        towers = sections["towers"]
        assert isinstance(towers, Towers) and isinstance(parameters, Pretrain)
        self._parameters = parameters
        self.pairs = open_pairs(inputs)
        self._builder = Builder(
            towers=towers, pairs=self.pairs, inputs=tuple(inputs), revisions=revisions, study_folder=study_folder
        )
        chunks = [parameters.chunk, resources.loss_chunk if resources is not None else None]
        self.chunk = min([parameters.batch, *(chunk for chunk in chunks if chunk is not None)])

    @cached_property
    def texts(self) -> Texts:
        """The tokenizer."""
        return self._builder.texts()

    def model(self, *, seed: int) -> TowerPair:
        """Build both towers and their heads."""
        text, vision = self._builder.tapped(seed=seed, vocabulary=self.texts.vocabulary)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "initialisation/heads"))
            text, vision = text.freeze_unread(), vision.freeze_unread()
            self._refuse_chunks(text, vision)
            return TowerPair(text, vision, width=self._parameters.width, temperature=self._parameters.temperature)

    def _refuse_chunks(self, *towers: TappedTower) -> None:
        """Raise ConfigError where chunks would have other batch statistics than the batch."""
        if self.chunk < self._parameters.batch and any(tower.batch_norms() for tower in towers):
            raise ConfigError(
                f"a tower has batch norms, which see a chunk of {self.chunk} where they should see the batch of "
                f"{self._parameters.batch}: leave chunk out and give more memory, or take a smaller batch"
            )

    def restrict(self, model: nn.Module) -> None:
        """Freeze again what no tap reaches, whatever the modes of the parts say."""
        assert isinstance(model, TowerPair)
        model.text.freeze_unread()
        model.vision.freeze_unread()

    def data(self, split: str) -> Captions | CaptionGroups:
        """Return texts with images of a split."""
        parameters = self._parameters
        captions = Captions(
            self.pairs,
            self.texts,
            split,
            others=parameters.images > 0,
            augmentation=parameters.augmentation if split == "train" else 0.0,
        )
        if split == "train":
            return captions
        return CaptionGroups(captions, group=self._parameters.batch, most=self._parameters.validation.batches)

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        """Return the nats of finding images by texts and texts by images, half and half."""
        assert isinstance(model, TowerPair)
        vectors = [self._encode(model, role, part(batch, role)) for role in ("text", "vision")]
        objective = Objective(scale=model.scale, symmetric=True, alone="groups" in batch)
        weight = self._parameters.images
        others = self._encode(model, "vision", part(batch, "other")) if weight else None
        total: Tensor = vectors[0].new_zeros(())
        terms: dict[str, Tensor] = {}
        low = 0
        for size in batch.get("groups", [len(vectors[0])]):
            span = slice(low, low + size)
            ids = {"own": batch["own"][span], "positives": batch["own"][span, None]}
            nats, more = objective(vectors[0][span], vectors[1][span], **ids)
            if others is not None:
                between, found = objective(others[span], vectors[1][span], **ids)
                nats, more = nats + weight * between, {**more, "image_r_at_1": found["r_at_1"]}
            total = total + nats
            terms = {name: terms.get(name, 0.0) + value for name, value in more.items()}
            low += size
        return Losses(total=total, weight=float(len(vectors[0])), terms=terms)

    def _encode(self, model: TowerPair, role: str, items: Mapping[str, Any]) -> Tensor:
        def encode(chunk: Mapping[str, Any]) -> Tensor:
            with naming_size("loss_chunk", self.chunk):
                return model.encode(role, chunk)

        rows = len(next(iter(items.values())))
        return encode_in_chunks(encode, list(chunks_of(items, rows, self.chunk)))

    def metrics(self, split: str, totals: Mapping[str, float], weight: float) -> dict[str, float]:
        """Return loss and in-batch recall at one, of images by texts (and by other images)."""
        return {
            f"{split}/{name}": totals[name] / weight for name in ("loss", "r_at_1", "image_r_at_1") if name in totals
        }

    def facts(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """Return what chance is."""
        return {"loss.chance": float(np.log(self._parameters.batch)), "gradient_cache.chunk": self.chunk}

    def evaluate(self, model: nn.Module, parameters: Any, context: Context) -> Outcome:
        """Towers alone are not evaluated; the train stage that takes them is."""
        raise ConfigError("an evaluate stage needs a train stage; towers that were only pretrained have no fusion")

    def prepare(self, parameters: Any, context: Context) -> Outcome:
        """Data are prepared by the task itself."""
        raise ConfigError("stage kind pretrain prepares nothing")


class Captions:
    """Passages of a split that have text and image, each with an image drawn from its own and those asked about.

    Raises:
        DataError: there are none to train on.
    """

    def __init__(
        self, pairs: Pairs, texts: Texts, split: str, *, others: bool = False, augmentation: float = 0.0
    ) -> None:
        self._pairs, self._texts = pairs, texts
        self._others, self._augmentation = others, augmentation
        asked: dict[int, list[int]] = defaultdict(list)
        for row in pairs.queries(split):
            for positive in row["positives"]:
                if row["image"] is not None:
                    asked[positive].append(row["image"])
        wanted = sorted({*asked, *map(int, pairs.pool("train"))} if split == "train" else asked)
        rows = ((index, pairs.passages[index]) for index in wanted)
        self._captions = [
            (row["text"], row["image"], sorted({row["image"], *asked.get(index, ())}))
            for index, row in rows
            if row["text"] is not None and row["image"] is not None
        ]
        self.samples = len(self._captions)
        if split == "train" and not self.samples:
            raise DataError("no passage of the train split has text and image; towers cannot be pretrained on it")

    def order(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Return the passages in the order of an epoch."""
        drawn = np.random.default_rng(stream_seed(seed, "data-order", epoch)).permutation(self.samples)
        return drawn.astype(np.int64)

    def batch(self, ids: npt.NDArray[np.int64], *, seed: int, step: int) -> dict[str, Any]:
        """Return texts and images; `own` tells by the passage's image which belong together."""
        chosen = [self._captions[int(i)] for i in ids]
        drawn = [stream_seed(seed, "positives", step, int(i)) for i in ids]
        words, mask = self._texts([each[0] for each in chosen])
        found: dict[str, Any] = {
            "text.ids": words,
            "text.mask": mask,
            "own": torch.tensor([each[1] for each in chosen]),
        }
        images = [each[2][n % len(each[2])] for each, n in zip(chosen, drawn, strict=True)]
        found["vision.pixels"] = self._pixels(images, seed=seed, step=2 * step, ids=ids)
        if self._others:
            # The next of the same thing's images: another drawing where there is one.
            images = [each[2][(n + 1) % len(each[2])] for each, n in zip(chosen, drawn, strict=True)]
            found["other.pixels"] = self._pixels(images, seed=seed, step=2 * step + 1, ids=ids)
        return found

    def _pixels(self, images: list[int], *, seed: int, step: int, ids: npt.NDArray[np.int64]) -> Tensor:
        pixels = self._pairs.pictures.batch(images)
        return torch.from_numpy(augment(pixels, seed=seed, step=step, ids=ids, strength=self._augmentation))

    def weight(self, batch: Mapping[str, Any]) -> float:
        """Return the number of texts."""
        return float(len(batch["own"]))


class CaptionGroups:
    """Captions in groups of a batch's size, as `Groups` has queries; one that is alone is left out."""

    def __init__(self, captions: Captions, *, group: int, most: int | None) -> None:
        self._captions, self._group = captions, group
        whole, rest = divmod(captions.samples, group)
        groups = whole + (rest > 1)
        self.samples = groups if most is None else min(groups, most)

    def order(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Return the groups as they stand."""
        return np.arange(self.samples, dtype=np.int64)

    def batch(self, ids: npt.NDArray[np.int64], *, seed: int, step: int) -> dict[str, Any]:
        """Return the captions of these groups, and their sizes."""
        spans = [range(int(i) * self._group, min((int(i) + 1) * self._group, self._captions.samples)) for i in ids]
        rows = np.array([row for span in spans for row in span], dtype=np.int64)
        return self._captions.batch(rows, seed=seed, step=0) | {"groups": [len(span) for span in spans]}

    def weight(self, batch: Mapping[str, Any]) -> float:
        """Return the number of texts."""
        return self._captions.weight(batch)
