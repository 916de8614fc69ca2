"""Retrieval for the loop: a retriever, queries with drawn positives, and the loss of a whole batch.

The loss couples the samples of a batch, so memory is saved by running the encoder over chunks with their gradients
cached (`ablab.models.gradient_cache`), never by a smaller batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn

from ablab.contract.base import Strict
from ablab.contract.context import Context
from ablab.contract.failure import ConfigError
from ablab.contract.order import Input, Resources
from ablab.contract.result import Outcome
from ablab.contract.stages import Nothing
from ablab.contract.training import Train
from ablab.data.pairs import Pairs
from ablab.models.gradient_cache import encode_in_chunks
from ablab.models.retriever import Retriever, Role
from ablab.tasks.retrieval.batches import Groups, Items, TrainPairs
from ablab.tasks.retrieval.building import SEEN, Builder, input_of
from ablab.tasks.retrieval.config import Ask, Evaluate, Index, Mine, Probe, RetrievalTrain
from ablab.tasks.retrieval.objective import Objective
from ablab.tasks.retrieval.preparation import open_pairs, prepare
from ablab.tasks.retrieval.sections import Data, Loss, Model, Towers
from ablab.tasks.retrieval.texts import Texts
from ablab.training.accumulation import split
from ablab.training.inherit import continue_from
from ablab.training.memory import naming_size
from ablab.training.task import Batch, Losses

#: Rows on which the share of lost tokens is measured.
_SAMPLE = 512

Section = TypeVar("Section", bound=Strict)


class Retrieval:
    """The compute-plane half of the task; built for one stage.

    Args:
        sections: those of the stage, typed.
        inputs: finished runs it reads; the prepared pairs are among them, or behind them.
        study_folder: where relative paths of the study start.
        parameters: of the stage.
        resources: of the attempt; a smaller chunk after memory ran out.
        revisions: of the study's lock file.
    """

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
        self._sections, self._inputs, self._study_folder = sections, tuple(inputs), study_folder
        self._parameters, self._revisions = parameters, revisions
        batch = getattr(parameters, "batch", 1)
        chunks = [getattr(parameters, "chunk", None), resources.loss_chunk if resources is not None else None]
        #: Items the encoder takes at once.
        self.chunk = min([batch, *(chunk for chunk in chunks if chunk is not None)])

    @cached_property
    def pairs(self) -> Pairs:
        """The prepared queries and passages."""
        return open_pairs(self._inputs)

    @cached_property
    def builder(self) -> Builder:
        """What builds towers and tokenizer."""
        return Builder(
            towers=self.section("towers", Towers),
            pairs=self.pairs,
            inputs=self._inputs,
            revisions=self._revisions,
            study_folder=self._study_folder,
        )

    @cached_property
    def texts(self) -> Texts:
        """The tokenizer."""
        return self.builder.texts()

    @cached_property
    def items(self) -> Items:
        """What turns rows into tensors."""
        return Items(self.pairs, self.texts)

    def model(self, *, seed: int) -> Retriever:
        """Build the retriever; its weights go on from a train stage, or its towers from a pretrain stage, among the
        inputs of a train stage."""
        loss = self.section("loss", Loss) if "loss" in self._sections else Loss()
        training = isinstance(self._parameters, RetrievalTrain)
        earlier = input_of(self._inputs, "train") if training else None
        model = self.builder.retriever(
            self.section("model", Model),
            loss,
            seed=seed,
            vocabulary=self.texts.vocabulary,
            pretrained=input_of(self._inputs, "pretrain") if training and earlier is None else None,
        )
        if earlier is not None:
            continue_from(model, earlier)
            model.freeze_unseen()
        return model

    def restrict(self, model: nn.Module) -> None:
        """Freeze again what nothing reads, whatever the modes of the parts say."""
        assert isinstance(model, Retriever)
        model.freeze_unseen()

    def data(self, split: str) -> TrainPairs | Groups:
        """Return queries with positives of a split; validation in groups of a batch's size."""
        parameters, model = self._parameters, self.section("model", Model)
        assert isinstance(parameters, RetrievalTrain)
        train = split == "train"
        mined = input_of(self._inputs, "mine")
        if train and parameters.negatives and mined is None:
            raise ConfigError(f"negatives {parameters.negatives} come from a mine stage; name one in `needs`")
        pairs = TrainPairs(
            self.items,
            parameters.split if train else split,
            batch=parameters.batch,
            sampler=parameters.sampler,
            sees={"query": SEEN[model.query], "passage": SEEN[model.passage]},
            negatives=_mined(mined, parameters, self.pairs)
            if train and mined is not None and parameters.negatives
            else None,
            count=parameters.negatives if train else 0,
            augmentation=parameters.augmentation if train else 0.0,
        )
        return pairs if train else Groups(pairs, group=parameters.batch, most=parameters.validation.batches)

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        """Return the nats of every query's positives among the passages of its batch, or of its group."""
        assert isinstance(model, Retriever)
        queries = self._encode(model, "query", part(batch, "query"))
        passages = self._encode(model, "passage", part(batch, "passage"))
        mined = self._negatives(model, batch)
        objective = self.objective(model, alone="groups" in batch)
        total: Tensor = queries.new_zeros(())
        terms: dict[str, Tensor] = {}
        with naming_size("loss_chunk", self.chunk):
            low = 0
            for size in batch.get("groups", [len(queries)]):
                span = slice(low, low + size)
                nats, more = objective(
                    queries[span],
                    passages[span],
                    own=batch["own"][span],
                    positives=batch["positives"][span],
                    negatives=mined,
                )
                total = total + nats
                terms = {name: terms.get(name, 0.0) + value for name, value in more.items()}
                low += size
        return Losses(total=total, weight=float(len(queries)), terms=terms)

    def objective(self, model: Retriever, *, alone: bool = False) -> Objective:
        """Return the loss of the section `loss`; `alone` where processes measure groups of their own."""
        loss = self.section("loss", Loss)
        return Objective(
            scale=model.scale,
            mean=loss.score == "mean",
            symmetric=loss.symmetric,
            repeats=loss.repeats,
            alone=alone,
        )

    def _encode(self, model: Retriever, role: Role, items: Mapping[str, Any]) -> Tensor:
        """Return the vectors of items, a chunk at a time."""
        chunks = list(split(items, len(items["text"]), self.chunk))
        with naming_size("loss_chunk", self.chunk):
            return encode_in_chunks(partial(self._encode_chunk, model, role), chunks)

    def _encode_chunk(self, model: Retriever, role: Role, items: Mapping[str, Any]) -> Tensor:
        # Memory may also run out when the chunk is encoded again, in the backward pass.
        with naming_size("loss_chunk", self.chunk):
            return model.encode(role, items)

    def _negatives(self, model: Retriever, batch: Batch) -> tuple[Tensor, Tensor] | None:
        if "negatives" not in batch:
            return None
        items = {name: value.flatten(0, 1) for name, value in part(batch, "negative").items()}
        return self._encode(model, "passage", items), batch["negatives"].flatten()

    def metrics(self, split: str, totals: Mapping[str, float], weight: float) -> dict[str, float]:
        """Return loss and in-batch recall at one."""
        return {f"{split}/loss": totals["loss"] / weight, f"{split}/r_at_1": totals["r_at_1"] / weight}

    def evaluate(self, model: nn.Module, parameters: Any, context: Context) -> Outcome:
        """Do what a stage on a trained model asks for: evaluate, probe, mine, index or search."""
        from ablab.tasks.retrieval import asking, evaluation, indexing, mining, probing

        assert isinstance(model, Retriever)
        if isinstance(parameters, Mine):
            return mining.mine(self, model, parameters, context)
        if isinstance(parameters, Index):
            return indexing.index(self, model, parameters, context)
        if isinstance(parameters, Ask):
            return asking.ask(self, model, parameters, context)
        if isinstance(parameters, Probe):
            return probing.probe(self, model, parameters, context)
        assert isinstance(parameters, Evaluate)
        return evaluation.evaluate(self, model, parameters, context)

    def prepare(self, parameters: Nothing, context: Context) -> Outcome:
        """Write the pairs of the section `data`."""
        return prepare(self.section("data", Data), context)

    def facts(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """Return the scale of the logits before training, lost tokens, taps, and what the last batch of an epoch is."""
        assert isinstance(model, Retriever)
        queries = self._encode(model, "query", part(batch, "query"))
        passages = self._encode(model, "passage", part(batch, "passage"))
        logits = self.objective(model).logits(queries, passages)
        train = self.data("train")
        assert isinstance(train, TrainPairs)
        size, rest = self._parameters.batch, train.samples % self._parameters.batch
        return {
            "logits.scale": float(logits.float().std()) if logits.numel() > 1 else 0.0,
            "loss.chance": float(np.log(size)),
            "taps.text": list(model.text.taps),
            "taps.vision": list(model.vision.taps),
            "gradient_cache.chunk": self.chunk,
            "epoch.rest": rest,
            "epoch.rest_taken": _rest_taken(self._parameters) if rest else "none",
            **self.truncation(),
        }

    def truncation(self) -> dict[str, float]:
        """Return the share of tokens beyond the tower's limit and of texts that lose some, of queries and passages."""
        found: dict[str, float] = {}
        for role, rows in (("query", self.pairs.queries("train")), ("passage", self.pairs.passages)):
            chosen = np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(int)
            texts = [text for row in chosen if (text := rows[int(row)]["text"]) is not None]
            lengths = np.array(self.texts.lengths(texts) or [0])
            beyond = np.maximum(lengths - self.texts.limit, 0)
            found[f"truncated.{role}.tokens"] = float(beyond.sum() / max(1, lengths.sum()))
            found[f"truncated.{role}.texts"] = float((beyond > 0).mean())
        return found

    def section(self, name: str, kind: type[Section]) -> Section:
        """Return a section, typed."""
        section = self._sections[name]
        assert isinstance(section, kind)
        return section


def _rest_taken(parameters: Train) -> str:
    """Return what happens to the queries that whole batches leave over."""
    last = "; of the last epoch they are left out" if parameters.epochs is not None else ""
    return f"filled up from the next epoch{last}"


def part(batch: Batch, role: str) -> dict[str, Any]:
    """Return what a batch holds of a role, by what `Retriever.encode` calls it."""
    prefix = f"{role}."
    return {name.removeprefix(prefix): value for name, value in batch.items() if name.startswith(prefix)}


def _mined(given: Input, parameters: RetrievalTrain, pairs: Pairs) -> np.ndarray:
    """Return the mined negatives. Raises ConfigError where they are of other queries, or fewer than are asked for."""
    from ablab.tasks.retrieval.mining import read_negatives

    found = read_negatives(given)
    queries = len(pairs.queries("train"))
    if parameters.split != "train" or len(found) != queries:
        raise ConfigError(
            f"{given.reference} mined negatives of {len(found)} train queries; this stage trains on "
            f"{len(pairs.queries(parameters.split))} of {parameters.split}: mine from the data that is trained on"
        )
    if parameters.negatives > found.shape[1]:
        raise ConfigError(
            f"negatives {parameters.negatives}: {given.reference} mined {found.shape[1]} a query; mine as many, or "
            "take fewer"
        )
    return found
