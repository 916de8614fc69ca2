"""Backbones for small studies: a language model and a vision tower, built from their configuration and trained first.

Each is a task of its own for the loop. What comes out is a folder in transformers' format (`export`), as a model of the
hub is, so that an arm takes the one as it takes the other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ablab.contract.base import Strict
from ablab.contract.context import Context
from ablab.contract.failure import ConfigError
from ablab.contract.models import ModelReference
from ablab.contract.order import Input
from ablab.contract.result import Outcome
from ablab.contract.seeds import stream_seed
from ablab.data.images import Framing, normalise
from ablab.data.templates import Encoder, template_of
from ablab.models.hub import load_model
from ablab.store.files import write_json
from ablab.store.inputs import prepared_artifacts
from ablab.tasks.vision_language.batches import ROW_TOKENS, Conversations, collate
from ablab.tasks.vision_language.config import Language, Tower
from ablab.tasks.vision_language.sections import Data
from ablab.tasks.vision_language.sets import TOKENIZER, Mixture, open_sets, phase_mixture
from ablab.training.task import Batch, Losses

#: Normalisation of towers built here.
MEAN = STD = (0.5, 0.5, 0.5)


class _Backbone:
    """What both share: built for one stage, with the prepared sets behind it."""

    def __init__(
        self, sections: Mapping[str, Strict], *, inputs: Iterable[Input] = (), study_folder: str | None, parameters: Any
    ) -> None:
        section = sections["data"]
        assert isinstance(section, Data)
        self._section, self._inputs, self._study_folder = section, tuple(inputs), study_folder
        self.parameters = parameters

    @cached_property
    def artifacts(self) -> Path:
        """Artifacts of the prepare run."""
        return prepared_artifacts(self._inputs)

    def _mixture(self, split: str) -> Mixture:
        return phase_mixture(
            lambda names: open_sets(self.artifacts, names, study_folder=self._study_folder),
            self.parameters.mixture,
            split=split,
            validation=self._section.validation,
            held_out=self._section.held_out,
        )

    def evaluate(self, model: nn.Module, parameters: Any, context: Context) -> Outcome:
        """Refuse: a backbone is judged by the arms that use it."""
        raise ConfigError("a backbone has no evaluation of its own; evaluate an arm that uses it")

    def prepare(self, parameters: Any, context: Context) -> Outcome:
        """Refuse: the prepare stage is the task's."""
        raise ConfigError("the prepare stage belongs to the task, not to a backbone")


class LanguageBackbone(_Backbone):
    """A causal language model trained on texts with the chat template its arms will use."""

    parameters: Language

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that the prepare stage trained."""
        return open_tokenizer(self.artifacts)

    def model(self, *, seed: int) -> nn.Module:
        """Build the language model with the tokenizer's vocabulary."""
        ids = {
            "vocab_size": len(self.tokenizer),
            "pad_token_id": self.tokenizer.pad_token_id,
            "eos_token_id": self._encoder.end,
            "bos_token_id": None,
        }
        reference = ModelReference(config={**self.parameters.architecture, **ids})
        return load_model(reference, kind="causal", seed=seed, role="llm")

    @cached_property
    def _encoder(self) -> Encoder:
        kind = str(self.parameters.architecture["model_type"])
        template = template_of(self.parameters.template, model_type=kind, system=self._section.system)
        return Encoder(self.tokenizer, template, image_token=-1, image_tokens=0, max_length=self.parameters.max_length)

    def data(self, split: str) -> Conversations:
        """Return the texts of a split."""
        return Conversations(
            self._mixture(split), self._encoder, None, batch=self.parameters.batch, grouped=True, everything=True
        )

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        """Return the nats of all tokens but each text's first."""
        device = next(model.parameters()).device
        rows = collate(batch["samples"], pad=self.tokenizer.pad_token_id, row_tokens=ROW_TOKENS[device.type])
        packed = rows.packed
        logits = model(
            input_ids=packed.ids.to(device),
            attention_mask=packed.mask().to(device),
            position_ids=packed.positions.to(device),
            use_cache=False,
        ).logits
        labels = packed.labels[:, 1:].to(device)
        total = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels.flatten(), reduction="sum")
        return Losses(total=total, weight=float((labels != -100).sum()))

    def metrics(self, split: str, totals: Mapping[str, float], weight: float) -> dict[str, float]:
        """Return the loss a token."""
        return {f"{split}/loss": totals["loss"] / weight}

    def facts(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """Return the beginning of a text."""
        return {"supervised.preview": self.tokenizer.decode(batch["samples"][0].encoded.ids.tolist())[:240]}

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write model and tokenizer in transformers' format."""
        saving: Any = model
        saving.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def open_tokenizer(artifacts: Path) -> Any:
    """Return the tokenizer a prepare stage trained.

    Raises:
        ConfigError: it trained none.
    """
    folder = artifacts / TOKENIZER
    if not folder.is_dir():
        raise ConfigError("a language model built here needs a tokenizer: set data.tokenizer.vocabulary")
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)


class Labelled(nn.Module):
    """A tower with a linear head that says of each patch what is there."""

    def __init__(self, tower: nn.Module, width: int, words: int, patches: int) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(width, words)
        # Every label is rare: start near its frequency, not at one half.
        nn.init.constant_(self.head.bias, -4.0)
        self.patches = patches

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (B, patches, words) of normalised pixels (B, 3, S, S)."""
        calling: Any = self.tower
        states = calling(pixel_values=pixels).last_hidden_state[:, -self.patches :]
        found: Tensor = self.head(states)
        return found


def _frozen_where_unread(model: Labelled, size: int) -> Labelled:
    """Freeze what has no part in the loss (what pools the patches into one vector), so that the table does not lie."""
    parameters = list(model.parameters())
    total = model(torch.zeros(1, 3, size, size)).sum()
    for parameter, found in zip(parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True):
        parameter.requires_grad_(found is not None)
    return model


class Scenes:
    """Pictures of a mixture with the words of what is where, on the tower's grid of patches.

    Args:
        mixture: rows that have `objects`, boxes with words.
        framing: pictures to pixels.
        words: labels by word.
        patch: pixels of a patch.
        augmented: mirror pictures and shift their colours at random, by the stream `augmentation`.
    """

    def __init__(
        self, mixture: Mixture, framing: Framing, words: Mapping[str, int], *, patch: int, augmented: bool = False
    ) -> None:
        self._augmented = augmented
        self._mixture, self._framing, self._words, self._patch = mixture, framing, words, patch
        self.samples = len(mixture)
        self._grid = framing.size // patch

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return all sample ids in a random order."""
        generator = np.random.default_rng(stream_seed(seed, "data-order", epoch))
        return generator.permutation(self.samples).astype(np.int64)

    def batch(self, ids: np.ndarray, *, seed: int, step: int) -> Batch:
        """Return uint8 pixels (B, 3, S, S) and labels, uint8 (B, patches, words)."""
        pixels = np.empty((len(ids), 3, self._framing.size, self._framing.size), np.uint8)
        labels = np.zeros((len(ids), self._grid * self._grid, len(self._words)), np.uint8)
        for place, number in enumerate(ids):
            rows, row = self._mixture.place(int(number))
            raw = rows.raw(row)
            image = rows.source.open(raw["image"])
            pixels[place] = self._framing.frame(image)
            self._label(labels[place], raw.get("objects", ()), side=max(image.size))
        if self._augmented:
            self._change(pixels, labels, np.random.default_rng(stream_seed(seed, "augmentation", step)))
        return {"pixels": torch.from_numpy(pixels), "labels": torch.from_numpy(labels)}

    def _change(self, pixels: np.ndarray, labels: np.ndarray, generator: np.random.Generator) -> None:
        """Mirror half of the pictures with their labels, and give all of them other colours, in place."""
        mirrored = np.flatnonzero(generator.random(len(pixels)) < 0.5)
        pixels[mirrored] = pixels[mirrored, :, :, ::-1]
        grid = labels.reshape(len(labels), self._grid, self._grid, -1)
        grid[mirrored] = grid[mirrored, :, ::-1]
        mixing = np.eye(3, dtype=np.float32) + generator.uniform(-0.25, 0.25, (len(pixels), 3, 3)).astype(np.float32)
        mixing *= generator.uniform(0.7, 1.1, (len(pixels), 1, 1)).astype(np.float32) / mixing.sum(2, keepdims=True)
        # White stays white, whatever the channels become.
        ink = np.matmul(mixing, (255.0 - pixels.astype(np.float32)).reshape(len(pixels), 3, -1))
        pixels[:] = np.clip(255.0 - ink, 0, 255).reshape(pixels.shape).astype(np.uint8)

    def weight(self, batch: Batch) -> float:
        """Return the number of patches."""
        return float(batch["labels"].shape[0] * batch["labels"].shape[1])

    def _label(self, labels: np.ndarray, objects: Iterable[Mapping[str, Any]], *, side: int) -> None:
        grid = labels.reshape(self._grid, self._grid, -1)
        scale = self._framing.size / side / self._patch
        for one in objects:
            left, top, right, bottom = (value * scale for value in one["box"])
            found = [self._words[word] for word in one["words"] if word in self._words]
            rows = slice(round(top), max(round(bottom), round(top) + 1))
            columns = slice(round(left), max(round(right), round(left) + 1))
            for word in found:
                grid[rows, columns, word] = 1


class TowerBackbone(_Backbone):
    """A vision tower trained to say which words each patch belongs to."""

    parameters: Tower

    @cached_property
    def words(self) -> dict[str, int]:
        """Labels: the words that enough pictures of training show, by number."""
        mixture = self._mixture("train")
        counts: Counter[str] = Counter()
        for number in range(len(mixture)):
            rows, row = mixture.place(number)
            counts.update({word for one in rows.raw(row).get("objects", ()) for word in one["words"]})
        found = sorted(word for word, count in counts.items() if count >= self.parameters.least)
        if not found:
            sets = ", ".join(self.parameters.mixture)
            raise ConfigError(f"no row of {sets} says what is in its picture (objects with boxes and words)")
        return {word: number for number, word in enumerate(found)}

    @property
    def _sizes(self) -> tuple[int, int]:
        given = self.parameters.architecture
        return int(given.get("image_size", 224)), int(given.get("patch_size", 16))

    def framing(self) -> Framing:
        """Return how pictures become pixels."""
        return Framing(size=self._sizes[0], aspect=self._section.aspect, mean=MEAN, std=STD)

    def model(self, *, seed: int) -> nn.Module:
        """Build the tower with its head."""
        size, patch = self._sizes
        tower = load_model(ModelReference(config=self.parameters.architecture), kind="vision", seed=seed, role="tower")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = Labelled(tower, int(tower.config.hidden_size), len(self.words), (size // patch) ** 2)
        return _frozen_where_unread(made, size)

    def data(self, split: str) -> Scenes:
        """Return the pictures of a split."""
        mixture, augmented = self._mixture(split), split == "train" and self.parameters.augmented
        return Scenes(mixture, self.framing(), self.words, patch=self._sizes[1], augmented=augmented)

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        """Return binary cross-entropy of all words, summed over patches."""
        logits = model(normalise(batch["pixels"], self.framing())).float()
        labels = batch["labels"].to(logits.dtype)
        total = functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        weight = float(labels.shape[0] * labels.shape[1])
        if model.training:
            return Losses(total=total, weight=weight)
        return Losses(total=total, weight=weight, terms={"recall": _recall(logits, labels)})

    def metrics(self, split: str, totals: Mapping[str, float], weight: float) -> dict[str, float]:
        """Return the loss a patch and the share of right words among as many best ones."""
        return {f"{split}/loss": totals["loss"] / weight, f"{split}/recall": totals["recall"] / weight}

    def facts(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """Return how many words there are."""
        return {"labels": len(self.words), "labels.share": float(batch["labels"].float().mean())}

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write the tower and its image processor in transformers' format."""
        assert isinstance(model, Labelled)
        saving: Any = model.tower
        saving.save_pretrained(folder)
        size = self._sizes[0]
        processor = {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"height": size, "width": size},
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "do_convert_rgb": True,
            "image_mean": list(MEAN),
            "image_std": list(STD),
            "resample": 3,
        }
        write_json(folder / "preprocessor_config.json", processor)
        (folder / "words.json").write_text(json.dumps(list(self.words), ensure_ascii=False), encoding="utf-8")


def _recall(logits: Tensor, labels: Tensor) -> Tensor:
    """Return, summed over patches, the share of a patch's words among as many best ones; 1 where there is none."""
    counts = labels.sum(-1).long()
    ranks = logits.argsort(-1, descending=True).argsort(-1)
    hits = ((ranks < counts[..., None]) & (labels > 0)).sum(-1)
    return torch.where(counts > 0, hits / counts.clamp_min(1), torch.ones_like(hits, dtype=torch.float32)).sum()
