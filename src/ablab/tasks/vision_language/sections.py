"""The sections of a vision-language study: its model and its data."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydantic import model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.experts import ExpertSettings
from ablab.contract.models import LanguageDropSettings, ModelReference, PyramidSettings
from ablab.contract.registry import is_file_reference, nearest
from ablab.data.rendering.settings import Rendered

#: Names of the generated question set (`ablab.data.emoji_questions`), checked against it by a test.
GENERATED_SETS = ("captions", "captions-share", "instruct", "instruct-share", "texts", "val")
#: Parts of the model that `parts` may name.
PARTS = ("llm", "tower", "connector")
#: Connectors of `ablab.models.connectors`, checked against them by a test; mlpNx_gelu and file.py:Name stand beside.
CONNECTORS = (
    "c_abstractor", "identity", "linear", "moe_mlp", "pixel_shuffle", "pyramid_c_abstractor", "resampler",
)  # fmt: skip
_MLP = re.compile(r"mlp\d+x_gelu")
_SQUARE = ("c_abstractor", "pyramid_c_abstractor")
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
    def _is_known(self) -> Connector:
        if self.name not in CONNECTORS and not _MLP.fullmatch(self.name) and not is_file_reference(self.name):
            near = nearest(self.name, (*CONNECTORS, "mlp2x_gelu"))
            hint = f"; did you mean {near}?" if near else ""
            raise ValueError(
                f"unknown connector {self.name!r}{hint} Known: {', '.join(CONNECTORS)}, mlpNx_gelu, file.py:Name"
            )
        side = math.isqrt(self.queries)
        if self.name in _SQUARE and side * side != self.queries:
            raise ValueError(
                f"{self.name} makes a square of tokens, and queries {self.queries} is none; near are {side * side} and "
                f"{(side + 1) ** 2}"
            )
        return self

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

    @model_validator(mode="after")
    def _scales_are_there(self) -> Model:
        if self.connector.name == "pyramid_c_abstractor" and self.pyramid is None:
            raise ValueError("the connector pyramid_c_abstractor takes the scales of a pyramid; give model.pyramid")
        return self


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
