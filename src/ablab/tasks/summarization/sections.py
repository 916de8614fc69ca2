"""The sections of a summarisation study: its model, data, input and pretraining."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.models import ModelReference

Split = Literal["val", "test", "train", "submission"]

#: Speakers and personal data as the public Korean and English sets mask them.
TAGS = (
    *(f"#Person{number}#" for number in range(1, 8)),
    "#PhoneNumber#",
    "#Address#",
    "#DateOfBirth#",
    "#PassportNumber#",
    "#SSN#",
    "#CardNumber#",
    "#CarNumber#",
    "#Email#",
)
#: Names of data the package makes itself.
GENERATED = "generated"


class Model(Strict):
    """The summariser: any encoder-decoder of transformers, or a decoder-only language model with a prompt."""

    checkpoint: ModelReference = setting(
        ...,
        "Hub name, folder, or {config: {model_type: mt5, ...}} built small and random; width, layers, heads, "
        "feedforward, positions and initial_std may stand there for what the architecture calls them.",
    )
    kind: Literal["seq2seq", "causal"] = setting(
        "seq2seq", "seq2seq: an encoder-decoder (mT5, T5, BART, mBART); causal: a decoder-only language model."
    )
    new_tokens: Literal["trained", "frozen"] = setting(
        "trained",
        "Rows of tokens that are added to the checkpoint's vocabulary: trained beside adapters, or left as drawn.",
        stages=("train", "evaluate", "decode-sweep"),
    )
    dropout: float | None = setting(None, "Dropout instead of the configuration's own.", ge=0, lt=1)
    accelerator: str = setting(
        "none", "none, or the name of a library that replaces the training step; it must apply to the architecture."
    )


class Splits(Strict):
    """How rows are divided where a split has no files of its own."""

    validation: float = setting(0.05, "Share of the dialogues for validation.", ge=0, lt=1)
    test: float = setting(0.05, "Share of the dialogues for test.", ge=0, lt=1)
    seed: int = setting(2357, "Seed of the division; the same for every seed of the study.", ge=0)

    @model_validator(mode="after")
    def _something_is_left(self) -> Splits:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing to train on")
        return self


class Fields(Strict):
    """Names of columns."""

    id: str = setting("fname", "Id of a row; rows without one count from 1.")
    dialogue: str = setting("dialogue", "The dialogue, turns separated by newlines.")
    summaries: tuple[str, ...] = setting(
        ("summary",), "Reference summaries: one column or several; a column may hold a list.", min_length=1
    )
    topic: str = setting("topic", "Topic of a row; may be missing.")


class Tokenizer(Strict):
    """Whose tokens: the checkpoint's own, or a tokenizer trained on the train split."""

    name: Literal["checkpoint", "unigram", "bpe"] = setting(
        "checkpoint", "checkpoint: the model's own; unigram or bpe: trained by the prepare stage."
    )
    vocabulary: int | None = setting(None, "Size of a trained vocabulary, special tokens included.", ge=64, le=65536)

    @model_validator(mode="after")
    def _vocabulary_fits(self) -> Tokenizer:
        if (self.name == "checkpoint") != (self.vocabulary is None):
            raise ValueError("vocabulary belongs to a trained tokenizer (unigram, bpe), which needs it")
        return self


class Data(Strict):
    """The dialogues, their cleaning, division and special tokens."""

    source: str = setting(
        ..., "generated (bilingual task dialogues of the package's own), files, or a hub data set as owner/name."
    )
    files: tuple[str, ...] = setting((), "CSV or JSONL files of the train split, with source: files.", keyed=False)
    validation_files: tuple[str, ...] = setting((), "Files of the validation split.", keyed=False)
    test_files: tuple[str, ...] = setting((), "Files of the test split.", keyed=False)
    submission_files: tuple[str, ...] = setting(
        (), "Files without summaries, for which summaries are written and handed in.", keyed=False
    )
    subset: str | None = setting(None, "Configuration of a hub data set.")
    language: Literal["ko", "en", "both"] = setting("both", "Languages of generated dialogues.")
    size: int | None = setting(
        None, "Generated dialogues to train on; a tenth of them are made for validation and for test each.", ge=8
    )
    fields: Fields = setting(default_factory=Fields, description="Names of columns.")
    splits: Splits = setting(default_factory=Splits, description="Division of what has no split of its own.")
    cleaning: tuple[Literal["whitespace", "noise", "filler"], ...] = setting(
        ("whitespace",), "Rules applied to dialogues in order: whitespace, noise (ㅋㅋ, !!!), filler (음, um)."
    )
    tags: tuple[str, ...] = setting(TAGS, "Speakers and personal data that are one token each.")
    tokenizer: Tokenizer = setting(default_factory=Tokenizer, description="Whose tokens.")
    overlap: Literal["keep", "drop"] = setting(
        "keep", "drop takes dialogues of validation and test out of train; kept ones are an audit's error."
    )
    max_dialogues: int | None = setting(None, "Read no more rows than this of each split.", ge=1)
    pretraining_topics: tuple[str, ...] = setting(
        (), "Dialogues of these topics (fnmatch patterns) are for a pretrain stage only, and in no other split."
    )

    @model_validator(mode="after")
    def _source_is_known(self) -> Data:
        if self.source not in (GENERATED, "files") and "/" not in self.source:
            raise ValueError(f"unknown source {self.source!r}; known: generated, files, or a hub id owner/name")
        given = (*self.files, *self.validation_files, *self.test_files, *self.submission_files)
        if (self.source == "files") != bool(self.files) or (given and self.source != "files"):
            raise ValueError("give `files` (and files of other splits) with `source: files`, and only then")
        if self.subset is not None and "/" not in self.source:
            raise ValueError(f"subset belongs to a hub data set given as owner/name; source is {self.source}")
        if (self.size is None) == (self.source == GENERATED):
            raise ValueError("size belongs to source: generated, which needs it; max_dialogues reads fewer rows")
        return self

    @property
    def hub(self) -> bool:
        """Whether the source is a data set of the hub."""
        return self.source not in (GENERATED, "files")


class Input(Strict):
    """What the model is shown of a dialogue, in tokens of its own, special ones included."""

    prefix: str = setting("", "Text before the dialogue.")
    suffix: str | None = setting(
        None, "Text between dialogue and summary; null is nothing, and a line 'Summary:' for a causal model."
    )
    encoder_length: int = setting(512, "Most tokens of prefix, dialogue and suffix.", ge=8, unit="tokens")
    decoder_length: int = setting(128, "Most tokens of a summary in training.", ge=4, unit="tokens")


class Pretraining(Strict):
    """How a backbone is made in place of a checkpoint of the hub.

    It learns to mend turns of the train split's dialogues, summaries unseen (Lewis et al. 2020: text infilling), and to
    summarise dialogues of other topics (`data.pretraining_topics`).
    """

    masked: float = setting(0.3, "Share of words that are masked in turns to mend; 0 mends nothing.", ge=0, lt=1)
    turns: int = setting(3, "Turns of a piece to mend.", ge=1)

    encoder_length: int = setting(256, "Most tokens of a dialogue.", ge=8, unit="tokens")
    decoder_length: int = setting(64, "Most tokens of a summary.", ge=4, unit="tokens")
