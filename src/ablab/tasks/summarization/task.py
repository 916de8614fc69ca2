"""Summarisation for the loop: pairs of dialogue and summary, and the cross-entropy of a summary's tokens as a sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ablab.contract.base import Strict
from ablab.contract.context import Context
from ablab.contract.failure import ConfigError
from ablab.contract.order import Input
from ablab.contract.result import Outcome
from ablab.contract.stages import Nothing
from ablab.data.dialogues import PreparedDialogues
from ablab.metrics.perplexity import perplexity
from ablab.models.loss import IGNORE, chunk_rows
from ablab.store.layout import RunFolder
from ablab.tasks.summarization import corpus as corpora
from ablab.tasks.summarization.config import DecodeSweep, Evaluate, TrainSummaries
from ablab.tasks.summarization.families import FAMILIES
from ablab.tasks.summarization.model import (
    Vocabulary,
    build_model,
    check_lengths,
    open_vocabulary,
    position_limit,
    product_head,
    shifted_right,
    target_logits,
    target_loss,
    target_states,
)
from ablab.tasks.summarization.pairs import Pairs
from ablab.tasks.summarization.pretraining import pretraining_rows
from ablab.tasks.summarization.sections import Data, Model, Pretraining
from ablab.tasks.summarization.sections import Input as Shown
from ablab.tasks.summarization.tokens import Encoded, Encoder, Lengths
from ablab.training.checkpoint import load_model as load_checkpoint
from ablab.training.retention import find
from ablab.training.task import Batch, Losses

#: Characters of the shown target.
_PREVIEW = 240

Section = TypeVar("Section", bound=Strict)


class Summarization:
    """The compute-plane half of the task; built for one stage.

    Args:
        sections: `model`, and `input` or `pretraining`, typed; `data` for the prepare stage.
        inputs: finished runs the stage reads: the prepared dialogues, a pretraining, a training.
        study_folder: where relative paths of the study start.
        parameters: of the stage.
        revisions: hub revisions of the study's lock file.
    """

    def __init__(
        self,
        sections: Mapping[str, Strict],
        *,
        inputs: Iterable[Input] = (),
        study_folder: str | None = None,
        parameters: Any = None,
        revisions: Mapping[str, str] | None = None,
    ) -> None:
        self._sections = sections
        self._revisions = revisions
        self._inputs = tuple(inputs)
        self._study_folder = study_folder
        self._parameters = parameters
        self._encoded: dict[str, list[Encoded]] = {}

    @cached_property
    def prepared(self) -> PreparedDialogues:
        """The dialogues."""
        return corpora.open_dialogues(self._inputs)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer, tags added."""
        return open_vocabulary(
            self._section("model", Model),
            self.prepared,
            inputs=self._inputs,
            revisions=self._revisions,
            study_folder=self._study_folder,
        )

    @cached_property
    def encoder(self) -> Encoder:
        """What turns rows into ids."""
        prefix, suffix, lengths = self._shown()
        return Encoder(self.vocabulary.tokenizer, causal=self.causal, prefix=prefix, suffix=suffix, lengths=lengths)

    @property
    def causal(self) -> bool:
        """Whether the model is decoder-only."""
        return self._section("model", Model).kind == "causal"

    def model(self, *, seed: int) -> nn.Module:
        """Load the checkpoint, or draw it and take over a pretraining's weights."""
        section = self._section("model", Model)
        before = [given for given in self._inputs if given.kind == "pretrain"]
        model = build_model(
            section,
            self.vocabulary,
            seed=seed,
            load_backbone=(lambda model: _load_backbone(before[0], model)) if before else None,
            inputs=self._inputs,
            revisions=self._revisions,
            study_folder=self._study_folder,
        )
        lengths = self.encoder.lengths
        check_lengths(section, model, source=lengths.source, target=lengths.target)
        return model

    def data(self, split: str) -> Pairs:
        """Return a split as pairs; a pretraining takes rows that no fine-tuning sees."""
        train = self._parameters if isinstance(self._parameters, TrainSummaries) else None
        batching = None if train is None else train.batching
        # A study may do without validation; every other split has to be there.
        none = split == "val" and split not in self.prepared.splits
        return Pairs(
            [] if none else self.encoded(split),
            causal=self.causal,
            padding=self.vocabulary.tokenizer.pad_token_id,
            name=split,
            batch=train.batch if train is not None and batching is not None and batching.group else None,
            tokens=None if batching is None else batching.tokens,
        )

    def encoded(self, split: str) -> list[Encoded]:
        """Return the rows of a split as ids; a pretraining has its own to train on."""
        if split not in self._encoded:
            self._encoded[split] = self._encode(split)
        return self._encoded[split]

    def _encode(self, split: str) -> list[Encoded]:
        rows = self.prepared.rows(split)
        if split == "train" and "pretraining" in self._sections:
            section = self._section("pretraining", Pretraining)
            rows = pretraining_rows(rows, self.prepared, section, mask=self.vocabulary.tokenizer.mask_token)
        return self.encoder.rows(rows)

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        """Return the nats of the summary's tokens; in evaluation also how many of them were predicted."""
        inputs, mask, targets = self._places(model, batch)
        _check_precision(model, targets.device)
        weight = float(targets.numel())
        smoothing = getattr(self._parameters, "label_smoothing", 0.0) if model.training else 0.0
        head = None if smoothing else product_head(model)
        if model.training and head is not None:
            states = target_states(model, inputs, mask)
            total = target_loss(head, states, targets, new=getattr(model, "new_rows", None))
            return Losses(total=total, weight=weight)
        if model.training:
            logits = target_logits(model, inputs, mask).float()
            total = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
            return Losses(total=total, weight=weight)
        total, right = self._judged(model, head, inputs, mask, targets)
        return Losses(total=total, weight=weight, terms={"right": right})

    def _judged(
        self, model: nn.Module, head: nn.Linear | None, inputs: dict[str, Tensor], mask: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the nats of the targets (N,) and how many of them were predicted."""
        total, right = torch.zeros((), device=targets.device), torch.zeros((), device=targets.device)
        made = target_logits(model, inputs, mask) if head is None else target_states(model, inputs, mask)
        rows = max(len(targets), 1) if head is None else chunk_rows(head.weight.size(0))
        for part, wanted in zip(made.split(rows), targets.split(rows), strict=True):
            logits = (part if head is None else head(part)).float()
            total = total + functional.cross_entropy(logits, wanted, reduction="sum")
            right = right + (logits.argmax(-1) == wanted).sum()
        return total, right

    def _places(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return what the model is given, the places (B, T) that predict a target, and the targets (N,)."""
        labels = batch["labels"]
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        if self.causal:
            mask = torch.zeros_like(labels, dtype=torch.bool)
            mask[:, :-1] = labels[:, 1:] != IGNORE
            return inputs, mask, labels[:, 1:][mask[:, :-1]]
        mask = labels != IGNORE
        return inputs | {"decoder_input_ids": shifted_right(model, labels, ignore=IGNORE)}, mask, labels[mask]

    def metrics(self, split: str, totals: Mapping[str, float], weight: float) -> dict[str, float]:
        """Return loss, perplexity and teacher-forced accuracy."""
        loss = totals["loss"] / weight if weight else 0.0
        values = {f"{split}/loss": loss, f"{split}/perplexity": perplexity(totals["loss"], weight or 1.0)}
        if "right" in totals and weight:
            values[f"{split}/accuracy"] = totals["right"] / weight
        return values

    def evaluate(self, model: nn.Module, parameters: Evaluate | DecodeSweep, context: Context) -> Outcome:
        """Summarise a split and score it, with one decoding or with several to choose from."""
        from ablab.tasks.summarization.evaluation import evaluate
        from ablab.tasks.summarization.sweep import decode_sweep

        if isinstance(parameters, DecodeSweep):
            return decode_sweep(self, model, parameters, context)
        return evaluate(self, model, parameters, context)

    def prepare(self, parameters: Nothing, context: Context) -> Outcome:
        """Write the dialogues of the section `data`."""
        return corpora.prepare(self._section("data", Data), context)

    def facts(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """Return what is supervised and cut off, and which rows of the vocabulary are new and train."""
        labels = batch["labels"]
        section = self._section("model", Model)
        known = [int(i) for i in labels[0].tolist() if i != IGNORE]
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        rows = any("new_rows" in name or "trainable_tokens" in name for name in trained)
        generating: Any = model
        whole = generating.get_input_embeddings().weight.requires_grad
        new = len(self.vocabulary.new)
        facts: dict[str, Any] = {
            "supervised.share": float((labels != IGNORE).float().mean()),
            "supervised.preview": self.encoder.decode(known)[:_PREVIEW],
            "architecture": str(generating.config.model_type),
            "tokens.new": new,
            "tokens.new_trained": new if rows or whole else 0,
        }
        limit = position_limit(section, model)
        return facts | ({} if limit is None else {"positions.limit": limit}) | self._truncation("train")

    def _truncation(self, split: str) -> dict[str, float]:
        return truncation(self.encoded(split), self.encoder.lengths)

    def _shown(self) -> tuple[str, str | None, Lengths]:
        """Return prefix, suffix and limits of this stage."""
        if "pretraining" in self._sections:
            before = self._section("pretraining", Pretraining)
            return "", None, Lengths(source=before.encoder_length, target=before.decoder_length)
        shown = self._section("input", Shown)
        return shown.prefix, shown.suffix, Lengths(source=shown.encoder_length, target=shown.decoder_length)

    def _section(self, name: str, kind: type[Section]) -> Section:
        section = self._sections[name]
        assert isinstance(section, kind)
        return section


def truncation(rows: Iterable[Encoded], lengths: Lengths) -> dict[str, float]:
    """Return which share of dialogues and summaries is cut off, and which share of their tokens."""
    rows = list(rows)
    found: dict[str, float] = {}
    for name, whole, limit in (
        ("source", np.array([row.whole_source for row in rows]), lengths.source),
        ("target", np.array([row.whole_target for row in rows]), lengths.target),
    ):
        if len(whole) and whole.sum():
            found[f"truncated.{name}"] = float((whole > limit).mean())
            found[f"truncated.{name}_tokens"] = float(np.maximum(whole - limit, 0).sum() / whole.sum())
    return found


def _check_precision(model: nn.Module, device: torch.device) -> None:
    """Refuse fp16 where activations overflow it: 66,246 in T5's feed-forward layers, where fp16 ends at 65,504.

    Raises:
        ConfigError: what to set instead.
    """
    config: Any = model.config
    family = FAMILIES.get(config.model_type)
    if family is None or family.fp16 or not torch.is_autocast_enabled(device.type):
        return
    if torch.get_autocast_dtype(device.type) == torch.float16:
        raise ConfigError(
            f"{config.model_type} overflows fp16 and turns to NaN (on a GPU without bf16, auto means fp16); set "
            "precision: bf16 or fp32"
        )


def _load_backbone(given: Input, model: nn.Module) -> str:
    """Copy the weights of a pretraining into a model; return where they are from.

    Raises:
        DataError: its checkpoint is damaged, or of another shape.
    """
    folder = find(RunFolder(Path(given.path)).checkpoints, given.checkpoint)
    load_checkpoint(folder, model)
    return f"stage {given.stage} ({given.key})"


def train_input(inputs: Iterable[Input]) -> Input:
    """Return the training among a stage's inputs. Raises ConfigError when there is none, or more than one."""
    found = [given for given in inputs if given.kind == "train"]
    if len(found) != 1:
        raise ConfigError(f"the stage needs one training, found {len(found)}; correct its `needs`")
    return found[0]
