"""From the sections `towers` and `model` to towers, a retriever and a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ablab.contract.failure import ConfigError
from ablab.contract.order import Input
from ablab.contract.seeds import stream_seed
from ablab.data.pairs import Pairs
from ablab.models.feedforward import use_blocks
from ablab.models.fusion import FusionShape
from ablab.models.hub import load_model, load_tokenizer
from ablab.models.retriever import Modalities, Retriever, Role, Temperature
from ablab.models.taps import TappedTower, resolve_taps
from ablab.models.towers import TextInput, VisionInput, open_clip_pair, open_clip_tokenizer
from ablab.tasks.retrieval.sections import Loss, Model, Towers
from ablab.tasks.retrieval.texts import OpenClipTexts, Texts, TowerTexts, TrainedTexts

SEEN: Mapping[str, Modalities] = {
    "both": (True, True), "text": (True, False), "image": (False, True), "none": (False, False),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Builds what a stage needs of the sections.

    Args:
        towers: the section.
        pairs: the prepared data, which knows its tokenizer and the size of its images.
        inputs, revisions, study_folder: as the task's code gets them.
    """

    towers: Towers
    pairs: Pairs
    inputs: tuple[Input, ...] = ()
    revisions: Mapping[str, str] | None = None
    study_folder: str | None = None

    def texts(self) -> Texts:
        """Return the tokenizer of the text tower.

        Raises:
            ConfigError: the tower comes from a configuration, which has no tokenizer, and none was trained.
        """
        towers = self.towers
        if self.pairs.manifest["tokenizer"] != "towers":
            return TrainedTexts(self.pairs, limit=towers.tokens)
        if towers.open_clip is not None:
            return OpenClipTexts(open_clip_tokenizer(towers.open_clip), limit=towers.tokens)
        reference = towers.pair or towers.text
        assert reference is not None
        if reference.config is not None:
            raise ConfigError(
                "data.tokenizer is `towers`, but the text tower comes from a configuration and has none; set "
                "data.tokenizer: {name: bpe, vocabulary: ...} or {name: bytes}"
            )
        return TowerTexts(load_tokenizer(reference, **self._places()), limit=towers.tokens)

    def tapped(self, *, seed: int, vocabulary: int) -> tuple[TappedTower, TappedTower]:
        """Return both towers with all layers tapped, from the hub or drawn from the seed."""
        text, vision, library = self._modules(seed, vocabulary)
        towers = self.towers
        words = TextInput(text, masked=library == "transformers")
        looks = VisionInput(vision, named=library == "transformers", mean=towers.mean, std=towers.std)
        side = self.pairs.manifest["images"]["size"]
        ids = torch.zeros(1, towers.tokens, dtype=torch.int64)
        probes = ({"ids": ids, "mask": torch.ones_like(ids).bool()}, {"pixels": torch.zeros(1, 3, side, side).byte()})
        try:
            return TappedTower(words, probe=probes[0]), TappedTower(looks, probe=probes[1])
        except (ValueError, RuntimeError, IndexError, TypeError, KeyError) as error:
            raise ConfigError(
                f"the towers do not take {towers.tokens} tokens, or images of {side} x {side} pixels (towers.tokens, "
                f"data.image_size): {str(error).splitlines()[0]}"
            ) from error

    def _modules(self, seed: int, vocabulary: int) -> tuple[nn.Module, nn.Module, str]:
        towers = self.towers
        if towers.open_clip is not None:
            drawn = stream_seed(seed, "initialisation/towers")
            pair = open_clip_pair(towers.open_clip, pretrained=towers.pretrained, seed=drawn)
            return pair.text, pair.vision, "open_clip"
        text, vision = towers.text or towers.pair, towers.vision or towers.pair
        assert text is not None and vision is not None
        sized: dict[str, Any] = {}
        if text.config is not None and towers.pair is None:
            sized = {"vocab_size": max(vocabulary, text.config.get("vocab_size", 0))}
        places = self._places()
        return (
            use_blocks(load_model(text, kind="text", seed=seed, role="text", config=sized, **places)),
            use_blocks(load_model(vision, kind="vision", seed=seed, role="vision", **places)),
            "transformers",
        )

    def _places(self) -> dict[str, Any]:
        return {"inputs": self.inputs, "revisions": self.revisions, "study_folder": self.study_folder}

    def retriever(
        self, model: Model, loss: Loss, *, seed: int, vocabulary: int, pretrained: Input | None = None
    ) -> Retriever:
        """Return the retriever: towers (pretrained by a stage where one is given), taps, fusion.

        Raises:
            ConfigError: a tap that a tower does not have; the message names those it has.
        """
        text, vision = self.tapped(seed=seed, vocabulary=vocabulary)
        if pretrained is not None:
            take_towers(text, vision, pretrained)
        wanted = model.taps if isinstance(model.taps, str) else (model.taps.text, model.taps.vision)
        text_taps, vision_taps = resolve_taps(wanted, text_depth=text.depth, vision_depth=vision.depth)
        sees: dict[Role, Modalities] = {"query": SEEN[model.query], "passage": SEEN[model.passage]}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "initialisation/fusion"))
            return Retriever(
                text=text.tap(text_taps),
                vision=vision.tap(vision_taps),
                shape=FusionShape(
                    text=text.widths,
                    vision=vision.widths,
                    width=model.width,
                    heads=model.heads,
                    queries=model.queries,
                    output=model.output,
                    dropout=model.dropout,
                    pooled=model.vectors == "mean",
                ),
                shared=model.cells == "shared",
                sees=sees,
                temperature=Temperature(loss.temperature, learnable=loss.learnable),
            )


def take_towers(text: TappedTower, vision: TappedTower, given: Input) -> None:
    """Load both towers of a finished pretrain stage, in place."""
    from ablab.training.inherit import take_part

    holder = nn.ModuleDict({"text": text, "vision": vision})
    for part in holder:
        take_part(holder, given, part)


def input_of(inputs: Iterable[Input], kind: str) -> Input | None:
    """Return the one input of a stage kind, or None.

    Raises:
        ConfigError: there are several.
    """
    found = [given for given in inputs if given.kind == kind]
    if len(found) > 1:
        names = ", ".join(given.reference for given in found)
        raise ConfigError(f"the stage needs one input of kind {kind} at most, found {names}; correct its `needs`")
    return found[0] if found else None
