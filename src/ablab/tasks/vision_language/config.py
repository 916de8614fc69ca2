"""What the vision-language task declares to the control plane: its sections, stages and metrics; no torch.

The section `model` names a language model, an image tower and what connects them, `data` the sets of conversations.
A pipeline trains in phases, each a stage of kind train with its own mixture, template and way to train each part. How
that is computed is `task.py`'s; what makes a study of it unsound is `audits.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import model_validator

from ablab.contract import stages
from ablab.contract.base import Strict, setting
from ablab.contract.decoding import Decoding
from ablab.contract.merge import MERGE
from ablab.contract.models import model_references
from ablab.contract.outlets import ask_spec, export_spec
from ablab.contract.registry import is_file_reference, nearest
from ablab.contract.task import Before, Complaint, DataReference, Metric, Sections, StageSpec, TaskSpec
from ablab.contract.training import Train
from ablab.data.rendering import settings as rendered
from ablab.tasks.vision_language.benchmarks import config as benchmarks
from ablab.tasks.vision_language.sections import PARTS, PREPARED, Data, Model, Template, without_null


class Phase(Train):
    """Parameters of a train stage: one phase, with its data and what of the model trains (`parts`)."""

    mixture: dict[str, float | None] = setting(
        ..., "Sets and how often each is seen in an epoch: 1 is once, 0.5 a seeded half, null not at all.", min_length=1
    )
    languages: dict[str, float] = setting(
        default_factory=dict,
        description="Share of each language's rows, met exactly over an epoch by leaving rows out; {} takes all.",
    )
    template: Template = setting("auto", "Chat template; auto goes by the language model, plain is for captions.")
    take: dict[str, str] = setting(
        default_factory=dict,
        description="Parts that start from another experiment's stage, which `needs` names: {connector: E04.pretrain}, "
        "and language experts: {experts.ko: tune-ko}.",
    )
    grouped: bool = setting(True, "Batches of like length and equal number of images; false draws them at random.")
    packing: bool = setting(
        True, "Several conversations in one row, attention kept inside each; false pads them.", keyed=False
    )
    row_tokens: int | None = setting(
        None, "Tokens of a packed row; null goes by the device.", ge=16, keyed=False, unit="tokens"
    )
    decoders: int = setting(2, "Threads that decode images.", ge=1, keyed=False)
    supervise: Literal["answers", "all"] = setting(
        "answers", "What is predicted: the assistant's words, or every word (of text only)."
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, given: Any) -> Any:
        return without_null(given, "mixture")

    @model_validator(mode="after")
    def _languages_sum_to_one(self) -> Phase:
        shares = self.languages.values()
        if shares and (min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6):
            raise ValueError(f"languages: shares lie above 0 and sum to 1; found {self.languages}")
        return self

    @model_validator(mode="after")
    def _parts_are_known(self) -> Phase:
        for field, names in (("parts", self.parts), ("take", self.take)):
            for name in names:
                if name.partition(".")[0] not in (*PARTS, "all", *(("experts",) if field == "take" else ())):
                    near = nearest(name, PARTS)
                    hint = f"; did you mean {near}?" if near else ""
                    raise ValueError(f"{field}: unknown part {name!r}{hint} Parts: {', '.join(PARTS)}, all")
        negative = [name for name, share in self.shares.items() if share <= 0]
        if negative:
            raise ValueError(f"mixture: shares must be above 0; {', '.join(negative)} is not")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Sets and how often each is seen."""
        return {name: share for name, share in self.mixture.items() if share is not None}


class Language(Train):
    """Parameters of a language stage: a small language model trained on texts, left as the artifact `model`."""

    architecture: dict[str, Any] = setting(
        ..., "Configuration by transformers' names, model_type included; the vocabulary is the tokenizer's."
    )
    mixture: dict[str, float] = setting(..., "Sets of text, as in a train stage.", min_length=1)
    template: Template = setting("auto", "Chat template.")
    max_length: int = setting(512, "Tokens of a text.", ge=8, unit="tokens")


class Tower(Train):
    """Parameters of a tower stage: a vision tower built small that learns what is where, left as artifact `model`."""

    architecture: dict[str, Any] = setting(..., "Configuration by transformers' names, model_type included.")
    mixture: dict[str, float] = setting(..., "Sets whose rows say what is in their pictures.", min_length=1)
    least: int = setting(3, "A word is a label when at least so many pictures show it.", ge=1)
    augmented: bool = setting(True, "Mirror pictures and shift their colours at random.")


class Cache(Strict):
    """Parameters of a cache stage: the features of a tower that no later stage trains, computed once."""

    mixture: dict[str, float] = setting(..., "Sets whose pictures are cached.", min_length=1)
    dtype: Literal["fp32", "fp16"] = setting("fp32", "How features are kept.")
    batch: int = setting(32, "Pictures at once.", ge=1, keyed=False)


class Evaluate(benchmarks.BenchmarkSettings):
    """Parameters of an evaluate stage: benchmarks from their official files.

    A path that begins with `prepared:` names a file that the prepare stage wrote.
    """

    zero_shot: bool = setting(False, "Ask the model as it is loaded, before any training; needs no train stage.")
    overlap: bool = setting(True, "Look for the benchmarks' pictures and questions in the training sets.")
    decoding: Decoding = setting(
        default_factory=lambda: Decoding(max_new_tokens=64), description="How answers are made."
    )
    template: Template = setting("auto", "Chat template; the one that the model was trained with.")
    batch: int = setting(16, "Answers at once.", ge=1, keyed=False)


class Probe(Strict):
    """Parameters of a probe stage: how much of a model's loss hangs on the images."""

    set: str | None = setting(None, "Set that is measured; null takes the one that validates.")
    template: Template = setting("auto", "Chat template; the one that the model was trained with.")
    rows: int = setting(64, "Rows measured.", ge=2)
    batch: int = setting(8, "Rows at once.", ge=1, keyed=False)


def _data(sections: Sections) -> Data:
    data = sections["data"]
    assert isinstance(data, Data)
    return data


def _data_references(sections: Sections, _: Any) -> list[DataReference]:
    """Return what the prepare stage reads from outside the store."""
    data, found = _data(sections), []
    for name, part in data.own.items():
        found += [
            DataReference(kind="file", name=file, path=f"data.sets.{name}.files[{i}]")
            for i, file in enumerate(part.files)
        ]
        if part.images is not None:
            tar = part.images.endswith(".tar")
            place = f"data.sets.{name}.images"
            found.append(DataReference(kind="file" if tar else "folder", name=part.images, path=place))
    if data.generated is not None:
        found.append(DataReference(kind="bundled", name="emoji", path="data.generated"))
    for name, drawn in data.rendered.items():
        place = f"data.rendered.{name}"
        found += rendered.references(drawn, path=place)
        found += [DataReference(kind="bundled", name=each, path=place) for each in ("emoji", "austen", "wordnet")]
    return found


def _model_references(sections: Sections, _: Any) -> list[DataReference]:
    """Return the models of the section `model` that come from outside the store."""
    model = sections["model"]
    assert isinstance(model, Model)
    return [
        *model_references(model.llm, path="model.llm"),
        *model_references(model.tower, path="model.tower"),
        *model_references(model.connector.pretrained, path="model.connector.pretrained"),
    ]


def _tower_references(sections: Sections, _: Any) -> list[DataReference]:
    """Return the tower alone, where it comes from outside the store."""
    model = sections["model"]
    assert isinstance(model, Model)
    return model_references(model.tower, path="model.tower")


def _evaluation_references(sections: Sections, parameters: Any) -> list[DataReference]:
    """Return models and official files of an evaluation; those that the prepare stage wrote are its inputs."""
    asked = benchmarks.references(parameters)
    return [
        *_model_references(sections, parameters),
        *(reference for reference in asked if not reference.name.startswith(PREPARED)),
    ]


def _model_files(sections: Sections, _: Any) -> list[str]:
    """Return the code file of a connector of one's own."""
    model = sections["model"]
    assert isinstance(model, Model)
    name = model.connector.name
    return [name.rpartition(":")[0]] if is_file_reference(name) else []


def _evaluation_files(sections: Sections, parameters: Any) -> list[str]:
    return [*_model_files(sections, parameters), *benchmarks.files(parameters)]


def _check_mixture(sections: Sections, parameters: Any, needs: tuple[str, ...] | None) -> list[Complaint]:
    """Return complaints about sets that are not there, and about parts that come from a stage nobody needs."""
    names = _data(sections).names
    found = [
        Complaint(
            path="mixture",
            message=f"unknown set {name!r}; there are {', '.join(names)}",
            suggestion=nearest(name, names),
        )
        for name in parameters.mixture
        if name not in names
    ]
    model = sections.get("model")
    if isinstance(model, Model) and model.language_drop is not None and getattr(parameters, "packing", False):
        message = "model.language_drop ranks images by the instruction of a row, and packed rows hold several"
        found.append(Complaint(path="packing", message=message, suggestion="packing: false"))
    experts = model.experts.experts if isinstance(model, Model) and model.experts is not None else ()
    for part, stage in getattr(parameters, "take", {}).items():
        if part.startswith("experts.") and part.partition(".")[2] not in experts:
            known = ", ".join(experts) or "none: model.experts makes them"
            message = f"there is no expert {part.partition('.')[2]!r} to fill; there are {known}"
            found.append(Complaint(path="take", message=message, suggestion=nearest(part.partition(".")[2], experts)))
        if needs is not None and stage.partition("@")[0] not in needs:
            message = (
                f"{part} is to come from {stage}, which `needs` does not name (needs: {', '.join(needs) or 'none'})"
            )
            found.append(Complaint(path="take", message=message, suggestion=nearest(stage, needs)))
    return found


def _couples(sections: Sections, _: Any) -> bool:
    """Whether a loss couples samples: a balanced mixture counts experts over the whole batch."""
    model = sections["model"]
    if not isinstance(model, Model):
        return False
    experts = model.experts is not None and (model.experts.balance > 0 or model.experts.z > 0)
    return experts or (model.connector.name == "moe_mlp" and model.connector.balance > 0)


def _features(sections: Sections, parameters: Any, before: Sequence[Before]) -> int | None:
    from ablab.tasks.vision_language.structure.feature_size import feature_bytes

    model = sections["model"]
    assert isinstance(model, Model)
    return feature_bytes(model, _data(sections), parameters, before)


def _checkpoint(sections: Sections, parameters: Any) -> int | None:
    from ablab.tasks.vision_language.structure.sizes import checkpoint_bytes

    model = sections["model"]
    assert isinstance(model, Model)
    return checkpoint_bytes(model, parameters)


def _merged(sections: Sections, parameters: Any) -> int | None:
    from ablab.tasks.vision_language.structure.sizes import decoder_bytes

    model = sections["model"]
    assert isinstance(model, Model)
    return decoder_bytes(model, parameters.dtype)


_TASK = "ablab.tasks.vision_language"

PREPARE = replace(
    stages.PREPARE,
    version=3,
    references=_data_references,
    summary="read, check and index conversations; generate questions and train a tokenizer where asked",
)

LANGUAGE = replace(
    stages.TRAIN,
    kind="language",
    parameters=Language,
    sections=("data",),
    seeded=False,
    run=f"{_TASK}.stages:train_backbone",
    code=f"{_TASK}.backbones:LanguageBackbone",
    check=_check_mixture,
    summary="train a small language model on texts, for arms to start from",
)

TOWER = replace(
    stages.TRAIN,
    kind="tower",
    parameters=Tower,
    sections=("data",),
    seeded=False,
    run=f"{_TASK}.stages:train_backbone",
    code=f"{_TASK}.backbones:TowerBackbone",
    check=_check_mixture,
    metrics=("train/loss", "val/loss", "val/recall"),
    summary="train a small vision tower to say what is where, for arms to start from",
)

CACHE = StageSpec(
    kind="cache",
    parameters=Cache,
    sections=("model", "data"),
    seeded=False,
    run=f"{_TASK}.caching:cache_features",
    inputs=("prepare", "tower"),
    references=_tower_references,
    check=_check_mixture,
    leaves_after=_features,
    summary="compute the features of a frozen tower once, for all arms that use it so",
)

TRAIN = replace(
    stages.TRAIN,
    parameters=Phase,
    version=3,
    sections=("model", "data"),
    inputs=("prepare", "train", "merge", "cache", "tower", "language"),
    references=_model_references,
    files=_model_files,
    couples=_couples,
    check=_check_mixture,
    leaves=_checkpoint,
    summary="train one phase: pretraining of the connector, instruction tuning",
)

#: Checkpoints keep only what was trained, so that the sections build the rest.
JOIN = replace(MERGE, sections=("model", "data"), inputs=("prepare", "train", "merge"), leaves=_merged)

EVALUATE = replace(
    stages.EVALUATE,
    parameters=Evaluate,
    version=3,
    sections=("model", "data"),
    inputs=("prepare", "train", "merge"),
    references=_evaluation_references,
    files=_evaluation_files,
    yields=benchmarks.yields,
    metrics=tuple(metric.name for metric in benchmarks.METRICS),
    summary="ask benchmarks from their official files and mark the answers",
)

PROBE = replace(
    stages.EVALUATE,
    kind="probe",
    parameters=Probe,
    sections=("model", "data"),
    references=_model_references,
    files=_model_files,
    metrics=("probe/*",),
    summary="loss with the right, a wrong and no image: how much a model looks",
)

EXPORT = replace(export_spec("model", "data"), references=_model_references, files=_model_files)
ASK = replace(ask_spec("model", "data"), references=_model_references, files=_model_files)

SPEC = TaskSpec(
    name="vision-language",
    title="Vision-language models",
    sections={"model": Model, "data": Data},
    stages={spec.kind: spec for spec in (PREPARE, LANGUAGE, TOWER, CACHE, TRAIN, JOIN, EVALUATE, PROBE, EXPORT, ASK)},
    pipeline={"prepare": {}},
    metrics=(
        Metric(
            name="*/loss",
            direction="lower",
            unit="nats",
            description="Mean negative log-likelihood of a supervised token: total nats / supervised tokens.",
        ),
        Metric(
            name="val/recall",
            direction="higher",
            description="Share of a picture's label words among as many highest-scored ones (towers).",
        ),
        Metric(
            name="probe/*",
            direction="higher",
            unit="nats",
            description="Loss a supervised token with another or no image, less that with the right one.",
        ),
        Metric(
            name="*experts-*",
            direction="lower",
            description="Auxiliary loss of the language experts (balance, z), weighted as it stands in the loss.",
        ),
        Metric(name="*padding", direction="lower", description="Share of the tokens of a batch that are padding."),
        *benchmarks.METRICS,
        # What is left are scores of benchmarks of one's own, under the names the study gives them.
        Metric(name="*", direction="higher", description=""),
    ),
    audits=f"{_TASK}.audits:AUDITS",
    code=f"{_TASK}.task:VisionLanguage",
    scaffold="ablab.tasks.vision_language:scaffold.yaml",
    preload=(
        f"{_TASK}.task",
        f"{_TASK}.stages",
        f"{_TASK}.backbones",
        f"{_TASK}.evaluation",
        "ablab.worker.stages.merge",
        "transformers.models.llama.modeling_llama",
        "transformers.models.clip.modeling_clip",
        "transformers.models.siglip.modeling_siglip",
        "transformers.generation.utils",
        "transformers.tokenization_utils_tokenizers",
        "peft",
    ),
)
