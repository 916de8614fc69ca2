"""The blocks of a retrieval experiment beside its pipeline; no torch.

`data` are queries and passages of M2KR's forms, `towers` a CLIP-style pair, `model` the fusion of their layers, `loss`
how queries and passages are told apart. Stages and their parameters are `config.py`'s.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.models import ModelReference
from ablab.contract.registry import is_file_reference

Modality = Literal["text", "image"]
Side = Literal["both", "text", "image", "none"]

#: Subsets of the generated set that ships with the package, and what the hub calls the data they stand for.
MINI: dict[str, str] = {"oven": "OVEN", "infoseek": "Infoseek", "evqa": "EVQA", "okvqa": "OKVQA"}
#: M2KR on the hub.
M2KR = "BByrneLab/multi_task_multi_modal_knowledge_retrieval_benchmark_M2KR"
#: Its tasks with (queries of train, valid, test), as its card says.
M2KR_TASKS: dict[str, tuple[int, int, int]] = {
    "CC": (595_375, 0, 0), "EVQA": (167_369, 9_852, 3_750), "IGLUE": (0, 0, 685), "Infoseek": (676_441, 0, 4_708),
    "KVQA": (64_396, 13_365, 5_120), "LLaVA": (350_747, 0, 5_120), "MSMARCO": (400_782, 6_980, 5_120),
    "OKVQA": (9_009, 5_046, 5_046), "OVEN": (339_137, 119_136, 5_120), "WIT": (2_810_679, 19_994, 5_120),
}  # fmt: skip
#: Queries of the generated set's subsets (train, val, test).
MINI_QUERIES: dict[str, tuple[int, int, int]] = {
    "oven": (4368, 588, 996), "infoseek": (4132, 572, 860), "evqa": (2468, 364, 488), "okvqa": (782, 128, 182),
}  # fmt: skip
#: Layers (text, vision) of pairs of the hub, by which taps are checked before anything is downloaded.
DEPTHS: dict[str, tuple[int, int]] = {
    "wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M": (3, 10),
    "wkcn/TinyCLIP-ViT-39M-16-Text-19M-YFCC15M": (6, 12),
    "wkcn/TinyCLIP-ViT-40M-32-Text-19M-LAION400M": (6, 12),
    "wkcn/TinyCLIP-ViT-61M-32-Text-29M-LAION400M": (9, 12),
    "openai/clip-vit-base-patch32": (12, 12),
    "openai/clip-vit-base-patch16": (12, 12),
    "openai/clip-vit-large-patch14": (12, 24),
    "openai/clip-vit-large-patch14-336": (12, 24),
}


class Splits(Strict):
    """Files of each split."""

    train: tuple[str, ...] = setting((), "Files of the train split; JSONL (.gz, .xz, .bz2 too) or parquet.")
    val: tuple[str, ...] = setting((), "Files of the validation split.")
    test: tuple[str, ...] = setting((), "Files of the test split.")

    def of(self, split: str) -> tuple[str, ...]:
        """Return the files of a split."""
        return tuple(getattr(self, split))

    @property
    def all(self) -> tuple[str, ...]:
        """All files."""
        return (*self.train, *self.val, *self.test)


class Tokenizer(Strict):
    """How text becomes tokens of the text tower."""

    name: Literal["towers", "bpe", "bytes"] = setting(
        "towers", "towers: the text tower's own; bpe: a byte-level BPE trained on the train split; bytes: UTF-8."
    )
    vocabulary: int | None = setting(None, "Size of a trained bpe, the end-of-text token included.", ge=257, le=65536)

    @model_validator(mode="after")
    def _vocabulary_fits(self) -> Tokenizer:
        if (self.name == "bpe") != (self.vocabulary is not None):
            raise ValueError("vocabulary belongs to a trained bpe, and only to that, for example vocabulary: 2048")
        return self


class Data(Strict):
    """Queries, passages and images. A query's text is "{instruction} {question}"."""

    source: str = setting(
        ...,
        "mini-m2kr (generated from bundled emoji), m2kr (the hub's parquet set), files, any data set of the hub in "
        "M2KR's form as owner/name, or file.py:Name of a reader: def Name(split, *, folder) yields rows.",
    )
    subset: str | None = setting(
        None, "Subset: oven, infoseek, evqa or okvqa of mini-m2kr; the task of the hub's set (OVEN, Infoseek, EVQA)."
    )
    form: Literal["flat", "hub"] = setting("flat", "File form in which mini-m2kr is written and read again.")
    queries: Splits = setting(
        default_factory=Splits,
        description="Files of queries, with source: files; their content is in the key.",
        keyed=False,
    )
    passages: Splits = setting(
        default_factory=Splits,
        description="Files of passages that are searched, beside those in the queries; in the key by content.",
        keyed=False,
    )
    images: str | None = setting(
        None, "Folder or tar file of the images, relative to the study; in the key by content.", keyed=False
    )
    image_size: int = setting(224, "Side of the square an image is resized and cropped to.", ge=8, unit="pixels")
    cache_images: bool | None = setting(
        None, "Keep all images decoded (null: where they take less than 1 GiB).", keyed=False
    )
    tokenizer: Tokenizer = setting(default_factory=Tokenizer, description="How text becomes tokens.")
    both_sides: bool = setting(False, "Keep only queries that have, as one of their positives has, text and image.")
    validation: float = setting(
        0.05,
        "Share of the train queries for validation where the source has none; whole images stay together.",
        ge=0,
        lt=1,
    )
    strata: tuple[Literal["candidates", "question-word", "image", "kind"], ...] = setting(
        (), "Draw `rows` evenly from what these tell apart, as a balance stage does."
    )
    rows: int | None = setting(None, "Train on this many queries, drawn with `seed`.", ge=1)
    seed: int = setting(2357, "Seed of drawn rows and splits; the same for every seed of the study.", ge=0)

    @model_validator(mode="after")
    def _source_is_known(self) -> Data:
        own = is_file_reference(self.source)
        if self.source not in {"mini-m2kr", "m2kr", "files"} and "/" not in self.source and not own:
            raise ValueError(
                f"unknown source {self.source!r}; known: mini-m2kr, m2kr, files, a hub id owner/name, or file.py:Name"
            )
        if (self.source == "files") != bool(self.queries.train or self.queries.test):
            raise ValueError("give `queries` with `source: files`, and only then")
        if self.strata and self.rows is None:
            raise ValueError("strata say how rows are drawn; say how many with rows")
        if self.source == "mini-m2kr" and self.subset not in MINI:
            raise ValueError(f"mini-m2kr has the subsets {', '.join(MINI)}; found {self.subset!r}")
        if self.source == "m2kr" and self.subset not in M2KR_TASKS:
            raise ValueError(f"m2kr has the tasks {', '.join(M2KR_TASKS)}; found {self.subset!r}")
        return self

    @property
    def counts(self) -> dict[str, int]:
        """Queries by split, where they are known before anything is read."""
        known = MINI_QUERIES if self.source == "mini-m2kr" else M2KR_TASKS if self.source == "m2kr" else {}
        if self.subset not in known or self.both_sides:
            return {} if self.rows is None else {"train": self.rows}
        train, val, test = known[self.subset]
        if not val:
            val = round(self.validation * train)
            train -= val
        return {"train": min(train, self.rows or train), "val": val, "test": test}

    @property
    def hub(self) -> str | None:
        """Hub id of the set, where it is one."""
        if self.source == "m2kr":
            return M2KR
        return self.source if "/" in self.source and not is_file_reference(self.source) else None


class Towers(Strict):
    """A CLIP-style pair: one name for both, or a text and a vision tower each."""

    pair: ModelReference | None = setting(None, "Both towers: a CLIP-like model of transformers.")
    text: ModelReference | None = setting(None, "The text tower, instead of a pair.")
    vision: ModelReference | None = setting(None, "The vision tower, instead of a pair; transformer or convolution.")
    open_clip: str | None = setting(None, "Model of open_clip, instead of a pair: MobileCLIP-S1, ViT-B-32.")
    pretrained: str | None = setting(None, "Weights of open_clip: datacompdr, laion2b_s34b_b79k; null is random.")
    tokens: int = setting(77, "Tokens of a text; what is beyond is lost.", ge=4, unit="tokens")
    mean: tuple[float, float, float] = setting((0.48145466, 0.4578275, 0.40821073), "Mean of the channels.")
    std: tuple[float, float, float] = setting((0.26862954, 0.26130258, 0.27577711), "Deviation of the channels.")

    @field_validator("pair", "text", "vision", mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """Leave out entries of a configuration that are null: an arm takes them away from what it is like."""
        if isinstance(given, dict) and isinstance(given.get("config"), dict):
            kept = {name: value for name, value in given["config"].items() if value is not None}
            return {**given, "config": kept}
        return given

    @model_validator(mode="after")
    def _one_origin(self) -> Towers:
        given = [self.pair is not None, self.open_clip is not None, self.text is not None or self.vision is not None]
        if sum(given) != 1 or (self.text is None) != (self.vision is None):
            raise ValueError("give a pair, or text and vision, or open_clip, and only one of them")
        if self.pretrained is not None and self.open_clip is None:
            raise ValueError("pretrained names weights of open_clip; give open_clip too")
        return self

    @property
    def random(self) -> bool:
        """Whether a tower starts from random numbers."""
        if self.open_clip is not None:
            return self.pretrained is None
        return any(each is not None and each.config is not None for each in (self.pair, self.text, self.vision))

    @property
    def depths(self) -> tuple[int | None, int | None]:
        """Layers of the text and of the vision tower, where the study tells."""
        if self.pair is not None and self.pair.name is not None:
            return DEPTHS.get(self.pair.name, (None, None))
        config: Any = self.pair.config if self.pair is not None else None
        text = config.get("text_config") if config is not None else self.text and self.text.config
        vision = config.get("vision_config") if config is not None else self.vision and self.vision.config
        return _depth(text), _depth(vision)


def _depth(config: Any) -> int | None:
    """Return the layers, or stages, of a tower's configuration."""
    if not isinstance(config, dict):
        return None
    layers = config.get("num_hidden_layers")
    stages = config.get("depths")
    if isinstance(layers, int):
        return layers
    return len(stages) if isinstance(stages, list | tuple) else None


class Taps(Strict):
    """Layers that are read, from 0, in pairs."""

    text: tuple[int, ...] = setting(..., "Layers of the text tower.")
    vision: tuple[int, ...] = setting(..., "Layers, or stages, of the vision tower.")

    @model_validator(mode="after")
    def _pairs(self) -> Taps:
        if len(self.text) != len(self.vision):
            raise ValueError(f"taps come in pairs; text has {len(self.text)}, vision {len(self.vision)}")
        for name, taps in (("text", self.text), ("vision", self.vision)):
            if not taps or list(taps) != sorted(set(taps)) or min(taps) < 0:
                raise ValueError(f"{name}: expected rising layers from 0, found {list(taps)}")
        return self


class Model(Strict):
    """Recurrent fusion of tapped layers. Parts that train, for `train.parts`: text, vision, fusion (or query_fusion
    and passage_fusion), scale."""

    taps: Literal["last", "thirds", "all"] | Taps = setting(
        "thirds", "last, thirds (early, middle, late: 3/7/11 of 12, 2/5/8 of 9), all, or {text: [...], vision: [...]}."
    )
    width: int = setting(1024, "Width of the state.", ge=2)
    heads: int = setting(16, "Attention heads; must divide the width.", ge=1)
    queries: int = setting(32, "Vectors of the state.", ge=1)
    output: int = setting(128, "Width of the vectors that are compared.", ge=1)
    dropout: float = setting(0.05, "Dropout in attention and feed-forward layers of the cell.", ge=0, lt=1)
    vectors: Literal["all", "mean"] = setting("all", "Compare all vectors (MaxSim), or their mean as one vector.")
    cells: Literal["shared", "separate"] = setting("separate", "One cell for queries and passages, or one each.")
    query: Side = setting("both", "What of a query is seen; none is a control that must fail.")
    passage: Side = setting("both", "What of a passage is seen.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        return self


class Loss(Strict):
    """Cross-entropy of each query over all passages of the batch, of all processes."""

    temperature: float = setting(1.0, "Scores are divided by it; where it is learnt, its start.", gt=0)
    learnable: bool = setting(False, "Learn the temperature (its inverse stays below 100).")
    score: Literal["sum", "mean"] = setting("sum", "Sum over the query's vectors, or mean: one scale for any number.")
    symmetric: bool = setting(False, "Also each passage over all queries, half and half.")
    repeats: Literal["positive", "ignored", "negative"] = setting(
        "positive",
        "What another passage of the batch counts as that is a positive of the query too, by id: a positive of a soft "
        "target, nothing, or a (false) negative.",
    )

    @model_validator(mode="after")
    def _start_is_within(self) -> Loss:
        if self.learnable and self.temperature < 0.01:
            raise ValueError(
                f"a learnt temperature stays above 0.01, and starts at {self.temperature}; fix it, or start it higher"
            )
        return self
