"""The vision-language task for the loop: a model of three parts, packed conversations, the loss as a sum of nats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ablab.contract.base import Strict
from ablab.contract.context import Context
from ablab.contract.failure import ConfigError
from ablab.contract.order import Input
from ablab.contract.outlets import Ask, Exported
from ablab.contract.result import Evaluation, Outcome
from ablab.contract.stages import Nothing
from ablab.contract.training import Trainability
from ablab.data.conversations import Conversation
from ablab.data.images import Framing
from ablab.data.templates import IGNORE, Encoded, Encoder
from ablab.data.tiling import Tiling
from ablab.models.connectors.pyramid import PyramidConnector
from ablab.models.experts import auxiliary_gradient, fill_expert, note_use, train_experts_only, use_of_experts
from ablab.models.layers import layers_of
from ablab.models.vision_language import VisionLanguageModel
from ablab.store.inputs import prepared_artifacts, reachable
from ablab.store.layout import RunFolder
from ablab.tasks.vision_language.assembly import Assembly
from ablab.tasks.vision_language.batches import ROW_TOKENS, Conversations, Rows, Sample, collate
from ablab.tasks.vision_language.config import Evaluate, Phase, Probe
from ablab.tasks.vision_language.features import FOLDER as FEATURES
from ablab.tasks.vision_language.features import FeatureFile, signature
from ablab.tasks.vision_language.preparing import prepare
from ablab.tasks.vision_language.sections import Data, Model
from ablab.tasks.vision_language.sets import Mixture, open_sets, phase_mixture
from ablab.tasks.vision_language.supervision import user_supervised
from ablab.training.inherit import continue_from, take_part
from ablab.training.retention import INDEX
from ablab.training.task import Batch, Losses

#: Samples looked at for facts, and characters of the shown text.
_LOOKED, _PREVIEW = 64, 400

Section = TypeVar("Section", bound=Strict)


class VisionLanguage:
    """The compute-plane half of the task; built for one stage.

    Args:
        sections: `model` and `data`, typed.
        inputs: finished runs the stage reads.
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
        self._sections, self._inputs, self._study_folder = sections, tuple(inputs), study_folder
        self.parameters, self._revisions = parameters, dict(revisions or {})

    @cached_property
    def artifacts(self) -> Path:
        """Artifacts of the prepare run."""
        return prepared_artifacts(self._inputs)

    @cached_property
    def assembly(self) -> Assembly:
        """What the section `model` names: configurations, tokenizer, image processor, and the model made of them."""
        return Assembly(
            self._section("model", Model),
            inputs=reachable(self._inputs),
            study_folder=self._study_folder,
            revisions=self._revisions,
        )

    def model(self, *, seed: int) -> nn.Module:
        """Build the model; a phase goes on from the phase before it, and takes parts from where `take` says.

        Raises:
            ConfigError: several phases could come before, or a part is taken from a stage that is no input.
        """
        if not isinstance(self.parameters, Phase):
            return self.assembly.build(seed=seed)
        taken = dict(self.parameters.take)
        phases = [given for given in self._inputs if _is_phase(given)]
        before = [given for given in phases if _named(given) not in taken.values()]
        if len(before) > 1:
            names = ", ".join(given.reference for given in before)
            raise ConfigError(f"the phase could go on from {names}; say with `take` what comes from which")
        # Experts are made of the layers that came before; behind a phase that had them, they are there already.
        late = not any(_had_experts(given) for given in before)
        model = self.assembly.build(seed=seed, experts=not late)
        for given in before:
            continue_from(model, given)
        if late:
            self.assembly.add_experts(model, seed=seed)
        for part, stage in taken.items():
            if part.startswith("experts."):
                self._take_expert(model, part.partition(".")[2], self._phase(phases, stage), seed=seed)
            else:
                take_part(model, self._phase(phases, stage), part)
        return model

    def _take_expert(self, model: VisionLanguageModel, expert: str, given: Input, *, seed: int) -> None:
        """Fill an expert from the language model of another phase."""
        other = continue_from(self.assembly.build(seed=seed, experts=False), given)
        assert isinstance(other, VisionLanguageModel)
        fill_expert(model.llm, expert, other.llm.state_dict())

    def restrict(self, model: nn.Module) -> None:
        """Freeze what of the language model is no expert, where the study says that only these train."""
        experts = self._section("model", Model).experts
        assert isinstance(model, VisionLanguageModel)
        if experts is not None and experts.train == "experts":
            train_experts_only(model.llm)

    def _phase(self, phases: list[Input], stage: str) -> Input:
        for given in phases:
            if _named(given) == stage:
                return given
        names = ", ".join(given.reference for given in phases) or "none"
        raise ConfigError(f"take: {stage} is no phase among the inputs ({names}); name it in `needs`")

    def data(self, split: str) -> Conversations:
        """Return what trains ("train") or validates ("val") the phase."""
        assert isinstance(self.parameters, Phase)
        return self.conversations(self._mixture(split), training=split == "train")

    def conversations(self, mixture: Mixture, *, training: bool = False) -> Conversations:
        """Return a mixture as tokens and pixels."""
        parameters, data = self.parameters, self._section("data", Data)
        phase = parameters if isinstance(parameters, Phase) else None
        return Conversations(
            mixture,
            self.encoder(max_length=data.max_length),
            self.framing,
            batch=phase.batch if phase else 1,
            grouped=phase.grouped if phase and training else False,
            blind=self.blind,
            decoders=phase.decoders if phase else 1,
            cached=self._cached(),
            everything=phase is not None and phase.supervise == "all",
            tiling=self.tiling,
        )

    @cached_property
    def framing(self) -> Framing:
        """How pictures become the tower's pixels."""
        return self.assembly.framing(self._section("data", Data).aspect)

    @cached_property
    def tiling(self) -> Tiling | None:
        """How pictures are cut into tiles; None takes each whole."""
        most = self._section("data", Data).tiles
        return None if most == 1 else Tiling(size=self.framing.size, most=most)

    def encoder(self, *, max_length: int | None = None) -> Encoder:
        """Return conversations to tokens, by the stage's template."""
        system = self._section("data", Data).system
        return self.assembly.encoder(self.parameters.template, max_length=max_length, system=system)

    @property
    def blind(self) -> bool:
        """Whether the model sees a picture of one colour instead of every image."""
        return self._section("model", Model).sight == "blind"

    def _mixture(self, split: str) -> Mixture:
        section = self._section("data", Data)
        return phase_mixture(
            self._sets,
            self.parameters.shares,
            split=split,
            validation=section.validation,
            held_out=section.held_out,
            languages=self.parameters.languages,
        )

    def _sets(self, names: Iterable[str]) -> Any:
        return open_sets(self.artifacts, names, study_folder=self._study_folder)

    def _cached(self) -> FeatureFile | None:
        found = [given for given in self._inputs if given.kind == "cache"]
        if not found or not isinstance(self.parameters, Phase):
            return None
        tower = self.parameters.parts.get("tower")
        if tower is None or tower.mode != "frozen":
            raise ConfigError(f"{found[0].reference} holds features of a frozen tower; set parts.tower.mode to frozen")
        if self.blind:
            raise ConfigError("a blind model looks at no cached features; leave the cache stage out of `needs`")
        features = FeatureFile(Path(found[0].path) / "artifacts" / FEATURES)
        wanted = signature(self._section("model", Model), self._section("data", Data))
        if features.tower != wanted:
            raise ConfigError(f"{found[0].reference} holds features of {features.tower}, this phase needs {wanted}")
        return features

    def rows(self, samples: list[Sample], device: torch.device) -> Rows:
        """Return samples as the model is given them."""
        phase = self.parameters if isinstance(self.parameters, Phase) else None
        wanted = phase.row_tokens if phase else None
        packing = phase.packing if phase else True
        row_tokens = wanted or ROW_TOKENS.get(device.type, ROW_TOKENS["cuda"])
        return collate(samples, pad=self.assembly.pad, row_tokens=row_tokens, packing=packing)

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        """Return the nats of the supervised tokens."""
        assert isinstance(model, VisionLanguageModel)
        rows = self.rows(batch["samples"], next(model.parameters()).device)
        self._warm_up(model, int(batch["step"]))
        total = self.assembly.nats(model, rows, self.framing)
        weight = float((rows.packed.labels != IGNORE).sum())
        terms: dict[str, Tensor] = {"padding": torch.tensor(rows.packed.padding * weight)}
        if model.training:
            for name, value in model.auxiliary_losses().items():
                # A mean beside a sum: it weighs as much as the tokens it stands beside.
                total = total + value * weight
                terms[name] = value.detach() * weight
        return Losses(total=total, weight=weight, terms=terms)

    def _warm_up(self, model: VisionLanguageModel, step: int) -> None:
        """Put as much of the tower's drop rates in force as the step's place in the warm-up says."""
        pyramid = self._section("model", Model).pyramid
        if pyramid is not None and pyramid.dropping is not None and isinstance(model.connector, PyramidConnector):
            steps = pyramid.dropping.warmup
            model.connector.warm = min(1.0, step / steps) if steps else 1.0

    def metrics(self, split: str, totals: Mapping[str, float], weight: float) -> dict[str, float]:
        """Return the loss a supervised token."""
        return {f"{split}/loss": totals["loss"] / weight}

    def evaluate(self, model: nn.Module, parameters: Evaluate | Probe, context: Context) -> Outcome:
        """Ask the benchmarks and mark the answers; with experts, say which were used for which language.

        A probe stage measures instead what images are worth.
        """
        from ablab.tasks.vision_language.evaluation import evaluate
        from ablab.tasks.vision_language.probing import probe

        assert isinstance(model, VisionLanguageModel)
        if isinstance(parameters, Probe):
            name = parameters.set or self._section("data", Data).validation
            if name is None:
                raise ConfigError("a probe needs a set: name one in its `set`, or in data.validation")
            return probe(self, model, Mixture(self._sets([name]), {name: 1}), parameters, context)
        if self._section("model", Model).experts is None:
            return evaluate(self, model, parameters, context, study_folder=self._study_folder)
        note_use(model.llm)
        outcome = evaluate(self, model, parameters, context, study_folder=self._study_folder)
        used = Evaluation(name="experts", tables=(use_of_experts(model.llm),))
        return outcome.model_copy(update={"evaluations": (*outcome.evaluations, used)})

    def export(self, model: nn.Module, folder: Path, parts: Mapping[str, Trainability]) -> Exported:
        """Write a trained model with tokenizer and processor in a format that others load."""
        from ablab.tasks.vision_language.outlets import export

        assert isinstance(model, VisionLanguageModel)
        return export(self, model, folder, parts)

    def ask(self, model: nn.Module, request: Ask) -> str:
        """Answer one question about images."""
        from ablab.tasks.vision_language.outlets import ask

        assert isinstance(model, VisionLanguageModel)
        return ask(self, model, request)

    def prepare(self, parameters: Nothing, context: Context) -> Outcome:
        """Write the sets of the section `data`."""
        return prepare(self._section("data", Data), context)

    def facts(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """Return what is supervised, what truncation takes and how much is padding, of the first samples."""
        data = self.data("train")
        said = [rows.conversation(row) for rows, row in map(data.mixture.place, _first(data))]
        looked = [data.encoder.encode(one) for one in said]
        supervised = [one.targets for one in looked]
        first = batch["samples"][0].encoded
        wanted = [i for i in first.labels.tolist() if i != IGNORE]
        rows = self.rows(batch["samples"], torch.device("cpu"))
        lost = [one for one in looked if one.lost]
        return {
            "supervised.share": sum(supervised) / max(1, sum(map(len, looked))),
            "supervised.none": sum(count == 0 for count in supervised),
            "supervised.all": sum(count >= len(one) - 1 for count, one in zip(supervised, looked, strict=True)),
            "supervised.user": sum(map(self._user_supervised, looked, said)),
            "supervised.preview": self.assembly.tokenizer.decode(wanted)[:_PREVIEW],
            "samples.looked": len(looked),
            "truncated.samples": len(lost),
            "truncated.answers": sum(one.lost for one in looked)
            / max(1, sum(supervised) + sum(o.lost for o in looked)),
            "batch.text": _shown(self.assembly, first)[:_PREVIEW],
            "batch.padding": rows.packed.padding,
            "random.parts": self.assembly.random_parts(),
            **self._expert_facts(model, batch),
            **{f"skipped.{one.name}": one.skipped for one in data.mixture.sets if one.skipped},
        }

    def _user_supervised(self, encoded: Encoded, conversation: Conversation) -> bool:
        ids, labels = encoded.ids.tolist(), encoded.labels.tolist()
        if isinstance(self.parameters, Phase) and self.parameters.supervise == "all":
            labels = [IGNORE if token == self.assembly.image_token else token for token in ids]

        def decode(span: list[int]) -> str:
            return str(self.assembly.tokenizer.decode(span, skip_special_tokens=True))

        return user_supervised(ids, labels, conversation, decode)

    def _expert_facts(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        assert isinstance(model, VisionLanguageModel)
        if self._section("model", Model).experts is None:
            return {}
        training = model.training
        with torch.enable_grad(), torch.random.fork_rng():
            losses = self.losses(model.train(), batch)
            gradient = auxiliary_gradient(model.llm, losses.total / losses.weight)
        model.train(training)
        return {
            "experts.layers": len(layers_of(model.llm, part="llm")[1]),
            "experts.auxiliary_gradient": gradient,
        }

    def _section(self, name: str, kind: type[Section]) -> Section:
        section = self._sections[name]
        assert isinstance(section, kind)
        return section


def _is_phase(given: Input) -> bool:
    """Whether an input left the whole model; a merge of published ones left a language model, which sections name."""
    return given.kind == "train" or (given.kind == "merge" and (RunFolder(given.path).checkpoints / INDEX).is_file())


def _named(given: Input) -> str:
    return given.reference.partition("@")[0]


def _had_experts(given: Input) -> bool:
    """Whether a run's model had language experts."""
    order = RunFolder(Path(given.path)).read_order()
    section = order.sections.get("model") if order is not None else None
    return isinstance(section, Mapping) and section.get("experts") is not None


def _first(data: Conversations) -> list[int]:
    step = max(1, data.samples // _LOOKED)
    return list(range(0, data.samples, step))[:_LOOKED]


def _shown(assembly: Assembly, one: Any) -> str:
    """Return a sample's text with each image as one mark."""
    text: list[str] = []
    ids: list[int] = []
    for token in [*one.ids.tolist(), None]:
        if token is None or token == assembly.image_token:
            if ids:
                text.append(assembly.tokenizer.decode(ids))
                ids = []
            if token is not None and (not text or text[-1] != "<image>"):
                text.append("<image>")
        else:
            ids.append(token)
    return "".join(text)
