"""The sections of a language-modelling study: its model and its data."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.registry import is_file_reference

QueryKey = Literal[
    "trained",
    "trained-orthogonal",
    "frozen-orthogonal",
    "frozen-global-orthogonal",
    "frozen-normal",
    "identity-query",
]

#: Corpora that ship with the package.
BUNDLED = ("austen", "wordnet")

#: Corpora of the hub by the name a study uses: (hub id, configuration).
HUB: dict[str, tuple[str, str | None]] = {
    "tinystories": ("roneneldan/TinyStories", None),
    "openwebtext": ("Skylion007/openwebtext", None),
    "wikitext-103": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
}


class Attention(Strict):
    """The query and key projections: how they start, and whether they are trained."""

    query_key: QueryKey = setting(
        "trained",
        "How the query and key projections start and whether they move: trained (normal), trained-orthogonal "
        "(head-wise orthogonal start), frozen-orthogonal (head-wise), frozen-global-orthogonal (one square orthogonal "
        "matrix), frozen-normal (standard deviation `scale`), identity-query (query is the identity, key is trained).",
    )
    scale: float | None = setting(
        None, "Standard deviation of frozen-normal; null is 1/sqrt(width), which keeps the logits' scale at 1.", gt=0
    )
    unfrozen_layers: int = setting(0, "The last N layers train their query and key all the same.", ge=0)
    output: Literal["trained", "zero"] = setting(
        "trained", "zero sets the attention output to zero: a control that must fail, since no token sees another."
    )
    bias: bool = setting(False, "Bias in the query, key, value and output projections.")

    @model_validator(mode="after")
    def _options_fit(self) -> Attention:
        if self.scale is not None and self.query_key != "frozen-normal":
            raise ValueError(f"scale belongs to frozen-normal; query_key is {self.query_key}")
        if self.unfrozen_layers and not self.query_key.startswith("frozen"):
            raise ValueError(f"unfrozen_layers needs frozen projections; query_key is {self.query_key}")
        return self


class Model(Strict):
    """A decoder-only transformer with pre-normalisation and learned positions; the vocabulary is the tokenizer's."""

    width: int = setting(512, "Width of the residual stream.", ge=1)
    layers: int = setting(6, "Transformer blocks.", ge=1)
    heads: int = setting(8, "Attention heads; must divide the width.", ge=1)
    feedforward: int | None = setting(None, "Width of the feed-forward layer; null is four times the width.", ge=1)
    context: int = setting(512, "Tokens of a window.", ge=1, unit="tokens")
    dropout: float = setting(0.1, "Dropout on embeddings, attention weights and both residual branches.", ge=0, lt=1)
    bias: bool = setting(True, "Bias in the feed-forward layers and the normalisations.")
    tied_head: bool = setting(True, "The output head is the token embedding.")
    initial_std: float = setting(0.02, "Standard deviation of every normal initial weight.", gt=0)
    attention: Attention = setting(default_factory=Attention, description="The query and key projections.")
    initialization: str | None = setting(
        None,
        "file.py:Name of a function of one's own that is called last: def Name(model, *, seed) changes the weights.",
    )
    store_frozen: Literal["weights", "seed"] = setting(
        "weights",
        "What a checkpoint holds of frozen projections: the weights, or the initialisation and its seed.",
        keyed=False,
    )

    @model_validator(mode="after")
    def _shapes_fit(self) -> Model:
        if self.initialization is not None and not is_file_reference(self.initialization):
            raise ValueError(f"initialization is file.py:Name; found {self.initialization!r}")
        if self.initialization is not None and self.store_frozen == "seed":
            raise ValueError(
                "initialization of one's own cannot be made again from a seed: set store_frozen to weights"
            )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        if self.attention.unfrozen_layers > self.layers:
            raise ValueError(f"attention.unfrozen_layers {self.attention.unfrozen_layers} exceeds layers {self.layers}")
        return self

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layer."""
        return self.feedforward or 4 * self.width


class Tokenizer(Strict):
    """How text becomes tokens."""

    name: Literal["gpt2", "bpe", "bytes"] = setting(
        "gpt2", "gpt2: GPT-2's byte-level BPE; bpe: a byte-level BPE trained on the train split; bytes: UTF-8 bytes."
    )
    vocabulary: int | None = setting(None, "Size of a trained bpe, the end-of-text token included.", ge=257, le=65536)

    @model_validator(mode="after")
    def _vocabulary_fits(self) -> Tokenizer:
        if self.name == "bpe" and self.vocabulary is None:
            raise ValueError("a trained bpe needs its vocabulary size, for example vocabulary: 2048")
        if self.name != "bpe" and self.vocabulary is not None:
            raise ValueError(f"vocabulary belongs to bpe; the tokenizer {self.name} has its own")
        return self


class Splits(Strict):
    """How documents are divided where the source has no split of its own."""

    official: bool = setting(True, "Take the source's own validation and test splits where it has them.")
    validation: float = setting(0.05, "Share of the documents for validation.", gt=0, lt=1)
    test: float = setting(0.05, "Share of the documents for test.", gt=0, lt=1)
    seed: int = setting(2357, "Seed of the division; the same for every seed of the study.", ge=0)

    @model_validator(mode="after")
    def _something_is_left(self) -> Splits:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing to train on")
        return self


class Data(Strict):
    """The text, its tokenizer and its splits. A document ends with the end-of-text token."""

    source: str = setting(
        ...,
        "Corpus: austen or wordnet (bundled), tinystories, openwebtext or wikitext-103 (hub), any hub data set as "
        "owner/name, files, or file.py:Name of a reader: def Name(split, *, folder) yields the texts of train, val, "
        "test.",
    )
    files: tuple[str, ...] = setting(
        (),
        "Text, JSONL or parquet files when source is files; relative to the study. Their content is in the key.",
        keyed=False,
    )
    validation_files: tuple[str, ...] = setting(
        (), "Files of the validation split, instead of a share of `files`; in the key by content.", keyed=False
    )
    test_files: tuple[str, ...] = setting(
        (), "Files of the test split, instead of a share of `files`; in the key by content.", keyed=False
    )
    documents: Literal["file", "chapters", "paragraphs", "lines"] = setting(
        "file",
        "What a document of a text file is: the whole file, a chapter (from its heading line to the next), a paragraph "
        "(between blank lines) or a line. Bundled corpora have their own rule.",
    )
    subset: str | None = setting(None, "Configuration of a hub data set given as owner/name.")
    text_field: str = setting("text", "Field that holds the text in JSONL, parquet and hub rows.")
    tokenizer: Tokenizer = setting(default_factory=Tokenizer, description="How text becomes tokens.")
    splits: Splits = setting(default_factory=Splits, description="Division into train, validation and test.")
    max_tokens: int | None = setting(
        None, "Stop the train split at the document that reaches this many tokens.", ge=1, unit="tokens"
    )
    max_documents: int | None = setting(None, "Read no more documents than this of each split of the source.", ge=1)

    @model_validator(mode="after")
    def _source_is_known(self) -> Data:
        named = (*BUNDLED, *HUB, "files")
        own = is_file_reference(self.source)
        if self.source not in named and "/" not in self.source and not own:
            raise ValueError(
                f"unknown source {self.source!r}; known: {', '.join(named)}, a hub id owner/name, or file.py:Name"
            )
        if (self.source == "files") != bool(self.files):
            raise ValueError("give `files` with `source: files`, and only then")
        if self.source != "files" and (self.validation_files or self.test_files):
            raise ValueError("validation_files and test_files belong to `source: files`")
        if self.subset is not None and "/" not in self.source:
            raise ValueError(f"subset belongs to a hub data set given as owner/name; source is {self.source}")
        return self

    def hub(self) -> tuple[str, str | None] | None:
        """Return (hub id, configuration) of a hub source, else None."""
        if self.source in HUB:
            return HUB[self.source]
        hub = "/" in self.source and not is_file_reference(self.source)
        return (self.source, self.subset) if hub else None
