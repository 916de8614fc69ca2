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
from ablab.contract.experts import ExpertSettings
from ablab.contract.merge import MERGE
from ablab.contract.models import LanguageDropSettings, ModelReference, PyramidSettings, model_references
from ablab.contract.outlets import ask_spec, export_spec
from ablab.contract.registry import is_file_reference, nearest
from ablab.contract.task import Before, Complaint, DataReference, Metric, Sections, StageSpec, TaskSpec
from ablab.contract.training import Train
from ablab.data.rendering import settings as rendered
from ablab.data.rendering.settings import Rendered
from ablab.tasks.vision_language.benchmarks import config as benchmarks

#: Names of the generated question set (`ablab.data.emoji_questions`), checked against it by a test.
GENERATED_SETS = ("captions", "captions-share", "instruct", "instruct-share", "texts", "val")
#: Parts of the model that `parts` may name.
PARTS = ("llm", "tower", "connector")
#: Chat templates of `ablab.data.templates`, checked against them by a test.
TEMPLATES = (
    "auto", "llama", "vicuna", "phi", "stablelm", "qwen2", "qwen2-base", "gemma", "gemma-chat", "chatml", "plain",
)  # fmt: skip
Template = Literal[
    "auto", "llama", "vicuna", "phi", "stablelm", "qwen2", "qwen2-base", "gemma", "gemma-chat", "chatml", "plain"
]
#: How a path says that a file is one the prepare stage wrote.
PREPARED = "prepared:"
#: Stage kinds that use the model on conversations, and those that build more of it than its tower.
_USES = ("train", "evaluate", "probe")
_BUILDS = (*_USES, "merge", "export", "ask")
_TRAINS = (*_USES, "language", "tower")


def without_null(given: Any, field: str) -> Any:
    """Return raw parameters without the entries of a mapping that are null: how a profile takes one away."""
    if not isinstance(given, dict) or not isinstance(given.get(field), dict):
        return given
    kept = {name: value for name, value in given[field].items() if value is not None}
    return {**given, field: kept}


class Connector(Strict):
    """What turns the tower's features into inputs of the language model."""

    name: str = setting(
        "mlp2x_gelu",
        "identity, linear, mlpNx_gelu (N linear layers with GELU between), moe_mlp (a mixture of such), resampler "
        "(queries that attend to the features), pixel_shuffle (blocks side by side, then an MLP), c_abstractor and "
        "pyramid_c_abstractor (convolutions around a pool), or file.py:Name of one's own.",
    )
    pretrained: ModelReference | None = setting(
        None, "InternVL checkpoint that the connector's weights come from (pixel_shuffle); null draws them."
    )
    experts: int = setting(4, "Experts of moe_mlp.", ge=2)
    active: int = setting(2, "Experts of moe_mlp that each feature uses.", ge=1)
    balance: float = setting(0.01, "Weight of moe_mlp's load-balancing loss.", ge=0)
    queries: int = setting(64, "Tokens an image becomes, of resampler and abstractors; a square for these.", ge=1)
    layers: int = setting(3, "Layers of the resampler; blocks of an abstractor before and after its pool.", ge=1)
    by: int = setting(2, "Side of the blocks of pixel_shuffle.", ge=1)
    heads: int = setting(8, "Attention heads of the resampler.", ge=1)

    @model_validator(mode="after")
    def _pretrained_fits(self) -> Connector:
        if self.pretrained is not None and (self.name != "pixel_shuffle" or self.pretrained.name is None):
            raise ValueError("pretrained names an InternVL checkpoint, for the connector pixel_shuffle")
        return self

    @property
    def options(self) -> dict[str, int | float]:
        """What the connector of this name takes beside its sizes."""
        taken = {
            "moe_mlp": ("experts", "active", "balance"),
            "resampler": ("queries", "layers", "heads"),
            "c_abstractor": ("queries", "layers"),
            "pyramid_c_abstractor": ("queries", "layers"),
            "pixel_shuffle": ("by",),
        }
        return {name: getattr(self, name) for name in taken.get(self.name, ())}


class Model(Strict):
    """A language model that sees through a tower."""

    llm: ModelReference = setting(..., "Causal language model of transformers.", stages=_BUILDS)
    tower: ModelReference = setting(..., "Vision tower of transformers (CLIP, SigLIP, SigLIP2, DINOv2, ...).")
    connector: Connector = setting(default_factory=Connector, description="Between the two.", stages=_BUILDS)
    feature_layer: int = setting(
        -2, "Hidden state of the tower that is used: -1 is the last layer's, -2 the one before; 0 the embeddings."
    )
    cls: Literal["auto", "drop", "keep"] = setting(
        "auto", "The tower's CLS token, where it has one: auto drops it; a tower without one loses no patch."
    )
    rotary_2d: bool = setting(False, "Turn the tower's queries and keys by row and column (2D-RoPE).")
    pyramid: PyramidSettings | None = setting(
        None, "Read several layers at several scales instead of `feature_layer`; may drop what is least looked at."
    )
    language_drop: LanguageDropSettings | None = setting(
        None, "Drop image tokens between layers of the language model (PyramidDrop).", stages=_BUILDS
    )
    experts: ExpertSettings | None = setting(
        None, "Make feed-forward layers of the language model into language experts with a router.", stages=_BUILDS
    )
    sight: Literal["seen", "blind"] = setting(
        "seen", "blind shows a picture of one colour instead of every image: a control that must fail.", stages=_BUILDS
    )


class DataSet(Strict):
    """Conversations in LLaVA's JSON and the pictures they name."""

    files: tuple[str, ...] = setting(
        ..., "JSON or JSONL files, relative to the study; their content enters the key.", keyed=False
    )
    images: str | None = setting(
        None, "Folder or tar file that image names start in; its content enters the key.", keyed=False
    )
    limit: int | None = setting(None, "Take the first N rows only.", ge=1)
    language: str = setting("", "Language of rows that do not say theirs (en, ko), for phases with language shares.")


class Generated(Strict):
    """Questions about pictures composed of the bundled emoji; things of the test are in no picture of training."""

    captions: int = setting(
        3000, "Rows of captions for pretraining, short and detailed ones of the same pictures.", ge=1
    )
    instruct: int = setting(4000, "Rows of instruction tuning.", ge=1)
    val: int = setting(64, "Rows of the validation set.", ge=1)
    test: int = setting(200, "Questions of each benchmark, or of a part of one.", ge=1)
    korean: float = setting(0.25, "Share of Korean rows in training.", ge=0, le=1)
    things: float = setting(1.0, "Share of all things that are used.", gt=0, le=1)
    seed: int = setting(2357, "Seed of division and draws; the same for every seed of the study.", ge=0)


class TrainedTokenizer(Strict):
    """A byte-level BPE trained on all text of training, with the end tokens of every template."""

    vocabulary: int = setting(2048, "Size, special tokens included.", ge=300, le=65536)


class Data(Strict):
    """The sets of conversations by name, and how they become tokens and pixels."""

    sets: dict[str, DataSet | None] = setting(
        default_factory=dict, description="Sets of one's own by name; null takes one away.", stages=("prepare",)
    )
    generated: Generated | None = setting(
        None, f"Generated sets: {', '.join(GENERATED_SETS)}; and benchmarks.", stages=("prepare",)
    )
    rendered: dict[str, Rendered] = setting(
        default_factory=dict,
        stages=("prepare",),
        description="Sets of drawn lines, documents, tables and charts by name, in Korean and English.",
    )
    tokenizer: TrainedTokenizer | None = setting(
        None, "Train a tokenizer, for language models that are built here.", stages=("prepare",)
    )
    max_skipped: int = setting(
        0, "Rows that may be left out because they are damaged or lack their image; each is reported.", ge=0,
        stages=("prepare",),
    )  # fmt: skip
    check_images: Literal["open", "exists"] = setting(
        "exists", "How pictures are checked beforehand: opened each, or only looked for.", stages=("prepare",)
    )
    validation: str | None = setting(None, "Set that validates; null takes rows of the mixture.", stages=_TRAINS)
    held_out: int = setting(
        64, "Rows of the mixture kept from training to validate on, where no set is named.", ge=1, stages=_TRAINS
    )
    aspect: Literal["pad", "square", "crop"] = setting(
        "pad",
        "pad to a square with the mean colour, square (proportions lost), or crop the middle.",
        stages=(*_USES, "cache", "tower"),
    )
    tiles: int = setting(
        1, "Tiles a picture is cut into at most, by InternVL's rule, with a thumbnail; 1 takes it whole.", ge=1,
        stages=(*_USES, "cache"),
    )  # fmt: skip
    max_length: int = setting(2048, "Tokens of a conversation, images included.", ge=8, unit="tokens", stages=_USES)
    system: str | None = setting(
        None,
        "Sentence at the beginning of a conversation; null is the template's own, an empty text is none.",
        stages=(*_USES, "language"),
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, given: Any) -> Any:
        return without_null(given, "sets")

    @model_validator(mode="after")
    def _something_to_read(self) -> Data:
        if not self.names:
            raise ValueError(
                "give `sets` (files of yours), `generated` (questions about the bundled emoji) or `rendered` (text)"
            )
        clash = sorted(name for name in set(self.names) if self.names.count(name) > 1)
        if clash:
            raise ValueError(f"sets {', '.join(clash)} are there twice; name yours otherwise")
        if self.validation is not None and self.validation not in self.names:
            raise ValueError(f"validation {self.validation!r} is no set; there are {', '.join(self.names)}")
        return self

    @property
    def own(self) -> dict[str, DataSet]:
        """Sets of one's own."""
        return {name: one for name, one in self.sets.items() if one is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all sets."""
        return (*self.own, *self.rendered, *(GENERATED_SETS if self.generated is not None else ()))


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
    for part, stage in getattr(parameters, "take", {}).items():
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
    from ablab.tasks.vision_language.feature_size import feature_bytes

    model = sections["model"]
    assert isinstance(model, Model)
    return feature_bytes(model, _data(sections), parameters, before)


def _checkpoint(sections: Sections, parameters: Any) -> int | None:
    from ablab.tasks.vision_language.sizes import checkpoint_bytes

    model = sections["model"]
    assert isinstance(model, Model)
    return checkpoint_bytes(model, parameters)


def _merged(sections: Sections, parameters: Any) -> int | None:
    from ablab.tasks.vision_language.sizes import decoder_bytes

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
