"""Language modelling for the loop: a GPT, windows of tokens, and the loss as a sum of nats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ablab.contract.base import Strict
from ablab.contract.context import Context
from ablab.contract.order import Input
from ablab.contract.registry import find_component
from ablab.contract.result import Outcome
from ablab.data.corpora import Prepared
from ablab.metrics.perplexity import scores
from ablab.models.gpt import GPT, Shape
from ablab.models.loss import IGNORE
from ablab.tasks.language_modeling import corpus as corpora
from ablab.tasks.language_modeling.config import Evaluate, Prepare
from ablab.tasks.language_modeling.evaluation import evaluate
from ablab.tasks.language_modeling.sections import Data, Model
from ablab.tasks.language_modeling.windows import TrainWindows, WholeSplit
from ablab.training.task import Batch, Losses

#: Sequences that the scale of the attention logits is measured on, and characters of the shown text.
_SEQUENCES, _PREVIEW = 2, 240

Section = TypeVar("Section", bound=Strict)


class LanguageModeling:
    """The compute-plane half of the task; built for one stage.

    Args:
        sections: `model` and `data`, typed.
        inputs: finished runs the stage reads; the prepared corpus is among them, or behind them.
        study_folder: where relative paths of the study start.
    """

    def __init__(
        self, sections: Mapping[str, Strict], *, inputs: Iterable[Input] = (), study_folder: str | None = None
    ) -> None:
        self._sections = sections
        self._inputs = tuple(inputs)
        self._study_folder = study_folder
        self._bytes: dict[torch.device, Tensor] = {}

    @cached_property
    def corpus(self) -> Prepared:
        """The prepared corpus."""
        return corpora.open_corpus(self._inputs)

    def model(self, *, seed: int) -> GPT:
        """Build the GPT of the section `model` with the tokenizer's vocabulary."""
        section = self._section("model", Model)
        shape = shape_of(section, vocabulary=self.corpus.vocabulary)
        model = GPT(shape, seed=seed, store_frozen=section.store_frozen)
        if section.initialization is not None:
            with torch.no_grad():
                find_component(section.initialization, folder=self._study_folder, like=initialization)(model, seed=seed)
        return model

    def data(self, split: str) -> TrainWindows | WholeSplit:
        """Return windows of the model's context over a split."""
        context = self._section("model", Model).context
        tokens = self.corpus.tokens(split)
        if split == "train":
            return TrainWindows(tokens, context=context)
        return WholeSplit(tokens, context=context, end_of_text=self.corpus.end_of_text)

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        """Return the nats of the targets; in evaluation also the bytes of text they stand for."""
        inputs, targets = batch["inputs"], batch["targets"]
        total: Tensor = model(inputs, targets)
        if model.training:
            return Losses(total=total, weight=float(targets.numel()))
        counts = targets != IGNORE
        size = (self._token_bytes(targets.device)[targets.clamp_min(0)] * counts).sum()
        return Losses(total=total, weight=float(counts.sum()), terms={"bytes": size})

    def metrics(self, split: str, totals: Mapping[str, float], weight: float) -> dict[str, float]:
        """Return loss, perplexity and bits per byte, and where the whole split was seen, word perplexity."""
        counts = self.corpus.counts(split)
        whole = int(weight) == counts.tokens
        values = scores(
            nats=totals["loss"], tokens=weight, size=totals.get("bytes"), words=counts.words if whole else None
        )
        return {f"{split}/{name}": value for name, value in values.items()}

    def evaluate(self, model: nn.Module, parameters: Evaluate, context: Context) -> Outcome:
        """Evaluate on a whole split with sliding windows."""
        assert isinstance(model, GPT)
        own = {name: find_component(name, folder=self._study_folder, like=metric) for name in parameters.metrics}
        return evaluate(model, self.corpus, parameters, context, own=own)

    def prepare(self, parameters: Prepare, context: Context) -> Outcome:
        """Write the corpus of the section `data`."""
        return corpora.prepare(self._section("data", Data), parameters, context)

    def facts(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """Return the scale of the attention logits before training, and what is supervised.

        logits.scale is the standard deviation of q kᵀ / sqrt(D) over heads and causal pairs, pooled over the layers;
        logits.scale_by_layer lists the layers.
        """
        assert isinstance(model, GPT)
        inputs, targets = batch["inputs"][:_SEQUENCES], batch["targets"]
        seen = torch.ones(inputs.size(1), inputs.size(1), dtype=torch.bool, device=inputs.device).tril()
        logits = [layer.float()[:, :, seen] for layer in model.attention_logits(inputs)]
        text = self.corpus.tokenizer().decode([i for i in targets[0].tolist() if i != IGNORE])
        return {
            "logits.scale": float(torch.stack([layer.var() for layer in logits]).mean().sqrt()),
            "logits.scale_by_layer": [float(layer.std()) for layer in logits],
            "supervised.share": float((targets != IGNORE).float().mean()),
            "supervised.preview": text[:_PREVIEW],
        }

    def _token_bytes(self, device: torch.device) -> Tensor:
        if device not in self._bytes:
            self._bytes[device] = torch.from_numpy(self.corpus.tokenizer().token_bytes()).to(device)
        return self._bytes[device]

    def _section(self, name: str, kind: type[Section]) -> Section:
        section = self._sections[name]
        assert isinstance(section, kind)
        return section


def initialization(model: nn.Module, *, seed: int) -> None:
    """Stand for the signature of an initialisation of one's own: changes the weights of `model` in place."""


def metric(nats: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    """Stand for the signature of a metric of one's own: nats and token of every target, in the order of the split."""
    raise TypeError("only its signature is used")


def shape_of(model: Model, *, vocabulary: int) -> Shape:
    """Return the shape that a section `model` describes."""
    attention = model.attention
    return Shape(
        vocabulary=vocabulary,
        width=model.width,
        layers=model.layers,
        heads=model.heads,
        hidden=model.hidden,
        context=model.context,
        dropout=model.dropout,
        bias=model.bias,
        attention_bias=attention.bias,
        tied_head=model.tied_head,
        initial_std=model.initial_std,
        query_key=attention.query_key,
        query_key_scale=attention.scale,
        unfrozen_layers=attention.unfrozen_layers,
        attention_output=attention.output,
    )
