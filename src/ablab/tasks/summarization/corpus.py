"""The prepare stage of summarisation: dialogues read, cleaned, divided and written, and the way back to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError, DataError
from ablab.contract.order import Input
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.contract.task import DataReference
from ablab.data.dialogues import (
    Dialogue,
    Fields,
    PreparedDialogues,
    ascii_share,
    clean,
    dialogue_of,
    divide,
    overlaps,
    read_dialogues,
    same_text,
    turns,
    write_dialogues,
)
from ablab.data.generated_dialogues import LANGUAGES, generate_dialogues
from ablab.data.generated_dialogues import Split as GeneratedSplit
from ablab.data.readers.hub import HubSet
from ablab.store.files import atomic_folder
from ablab.store.hub import lock_name
from ablab.store.inputs import prepared_artifacts
from ablab.tasks.summarization.sections import GENERATED, Data
from ablab.tasks.summarization.tokens import train_tokenizer

#: Folder of the dialogues below a prepare run's artifacts.
FOLDER = "dialogues"
#: Splits of hub sets by the names they go by.
_HUB_SPLITS = {"train": ("train",), "val": ("validation", "dev", "valid"), "test": ("test",)}

#: Columns of generated rows.
_GENERATED = Fields(summaries=("summaries",))

Splits = dict[str, list[Dialogue]]


def prepare(data: Data, context: Context) -> Outcome:
    """Write the dialogues below the run's artifacts, unless an earlier attempt has finished it.

    Raises:
        DataError: a file is missing or damaged, or a split is empty.
        ConfigError: a hub set without the columns or splits asked for.
    """
    target = context.artifacts / FOLDER
    if not target.exists():
        splits = read_splits(data, revisions=context.order.revisions, folder=context.order.study_folder)
        with atomic_folder(target, replace=True) as folder:
            _write(folder, data, splits)
    return _outcome(PreparedDialogues(target))


def _write(folder: Path, data: Data, splits: Splits) -> None:
    shared = {name: len(pairs) for name, pairs in overlaps(splits).items()}
    dropped = _drop_overlap(splits) if data.overlap == "drop" else 0
    rules = list(data.cleaning)
    cleaned = {
        name: [dataclasses.replace(row, dialogue=clean(row.dialogue, rules)) for row in rows]
        for name, rows in splits.items()
    }
    if not cleaned.get("train"):
        raise DataError("the train split holds no dialogues")
    vocabulary = None
    if data.tokenizer.name != "checkpoint":
        assert data.tokenizer.vocabulary is not None
        texts = (
            text
            for row in (*cleaned["train"], *cleaned.get("pretraining", ()))
            for text in (row.dialogue, *row.summaries)
        )
        vocabulary = train_tokenizer(
            texts, folder / "tokenizer", name=data.tokenizer.name, vocabulary=data.tokenizer.vocabulary, tags=data.tags
        )
    texts = (text for rows in cleaned.values() for row in rows for text in row.summaries)
    facts = {
        "source": data.source,
        "overlaps": {} if data.overlap == "drop" else shared,
        "dropped": dropped,
        "ascii_share": ascii_share(texts),
        "vocabulary": vocabulary,
        "cleaned": {name: _changed(splits[name], cleaned[name]) for name in splits},
    }
    write_dialogues(folder, cleaned, tags=data.tags, facts=facts)


def _changed(before: Sequence[Dialogue], after: Sequence[Dialogue]) -> int:
    return sum(a.dialogue != b.dialogue for a, b in zip(before, after, strict=True))


def _drop_overlap(splits: Splits) -> int:
    """Take dialogues that other splits hold out of train (and pretraining); return how many."""
    held = {same_text(row.dialogue) for name in ("val", "test", "submission") for row in splits.get(name, ())}
    dropped = 0
    for name in ("train", "pretraining"):
        kept = [row for row in splits.get(name, ()) if same_text(row.dialogue) not in held]
        dropped += len(splits.get(name, ())) - len(kept)
        if name in splits:
            splits[name] = kept
    return dropped


def read_splits(data: Data, *, revisions: Mapping[str, str], folder: str | None) -> Splits:
    """Return the rows of every split that the section `data` names."""
    if data.source == GENERATED:
        splits = _generated(data)
    elif data.hub:
        splits = _hub(data, revisions)
    else:
        splits = _files(data, folder)
    if data.max_dialogues is not None:
        splits = {name: rows[: data.max_dialogues] for name, rows in splits.items()}
    return _apart(_divided(data, splits), data.pretraining_topics)


def _files(data: Data, folder: str | None) -> Splits:
    given = {"train": data.files, "val": data.validation_files, "test": data.test_files}
    fields = _fields(data)
    splits: Splits = {
        name: [row for file in files for row in read_dialogues(_place(file, folder), fields=fields)]
        for name, files in given.items()
        if files
    }
    if data.submission_files:
        splits["submission"] = [
            row
            for file in data.submission_files
            for row in read_dialogues(_place(file, folder), fields=fields, summaries=False)
        ]
    return splits


def _place(file: str, folder: str | None) -> Path:
    return Path(folder or ".", Path(file).expanduser())


def _fields(data: Data) -> Fields:
    fields = data.fields
    return Fields(id=fields.id, dialogue=fields.dialogue, summaries=fields.summaries, topic=fields.topic)


def _hub(data: Data, revisions: Mapping[str, str]) -> Splits:
    reference = DataReference(kind="hub", name=data.source)
    hub = HubSet(name=data.source, subset=data.subset, revision=revisions.get(lock_name(reference)))
    there, fields = hub.splits(), _fields(data)
    splits: Splits = {}
    for name, known in _HUB_SPLITS.items():
        found = next((each for each in known if each in there), None)
        if found is None:
            continue
        place = f"{data.source}/{found}"
        splits[name] = [dialogue_of(values, file=place, row=row, fields=fields) for row, values in hub.rows(found)]
    if "train" not in splits:
        raise ConfigError(f"{data.source} has no split train; it has {', '.join(there)}")
    return splits


def _generated(data: Data) -> Splits:
    """Return generated dialogues; the wordings of test occur nowhere in train and validation."""
    assert data.size is not None
    held = max(data.size // 10, 8)
    counts: tuple[tuple[GeneratedSplit, int], ...] = (("train", data.size), ("val", held), ("test", held))
    languages = LANGUAGES if data.language == "both" else (data.language,)
    return {
        name: [
            dialogue_of(values, file=f"generated {name}", row=row, fields=_GENERATED)
            for row, values in enumerate(generate_dialogues(name, rows=count, languages=languages), start=1)
        ]
        for name, count in counts
    }


def _apart(splits: Splits, patterns: Sequence[str]) -> Splits:
    """Set the train split's dialogues of some topics apart, and take those topics out of every other split."""
    if not patterns:
        return splits

    def is_apart(row: Dialogue) -> bool:
        return any(fnmatchcase(row.topic, pattern) for pattern in patterns)

    apart = [row for row in splits["train"] if is_apart(row)]
    if not apart:
        known = ", ".join(sorted({row.topic for row in splits["train"]})[:12])
        raise ConfigError(f"data.pretraining_topics {', '.join(patterns)} match no topic; topics: {known}")
    kept = {name: [row for row in rows if not is_apart(row)] for name, rows in splits.items()}
    return {**kept, "pretraining": apart}


def _divided(data: Data, splits: Splits) -> Splits:
    """Divide off the train split what has no rows of its own."""
    shares = {
        "validation": 0.0 if splits.get("val") else data.splits.validation,
        "test": 0.0 if splits.get("test") else data.splits.test,
    }
    if not any(shares.values()):
        return splits
    made = divide(splits["train"], validation=shares["validation"], test=shares["test"], seed=data.splits.seed)
    own = {name: rows for name, rows in splits.items() if name != "train" and rows}
    return {"train": made["train"], **{name: rows for name, rows in made.items() if name != "train" and rows}, **own}


def open_dialogues(inputs: Iterable[Input]) -> PreparedDialogues:
    """Return the prepared dialogues among a stage's inputs, or behind them: an evaluation may need only its training.

    Raises:
        ConfigError: there are none, or several.
    """
    return PreparedDialogues(prepared_artifacts(inputs) / FOLDER)


def _outcome(prepared: PreparedDialogues) -> Outcome:
    """Return counts by split, overlaps and what a tokenizer of ASCII would keep."""
    manifest = prepared.manifest
    facts: dict[str, Any] = {
        "source": manifest["source"],
        "vocabulary": manifest["vocabulary"],
        "letters.ascii_share": manifest["ascii_share"],
        "overlaps": manifest["overlaps"],
        "overlaps.dropped": manifest["dropped"],
    }
    rows = []
    for name in prepared.splits:
        split = prepared.rows(name)
        references = sum(len(row.summaries) for row in split)
        facts[f"dialogues.{name}"] = len(split)
        rows.append(
            (
                name,
                len(split),
                references,
                round(_mean([len(row.dialogue) for row in split]), 1),
                round(_mean([len(turns(row.dialogue)) for row in split]), 1),
                round(_mean([len(text) for row in split for text in row.summaries]), 1),
                manifest["cleaned"][name],
            )
        )
    columns = ("split", "dialogues", "summaries", "characters", "turns", "characters of a summary", "cleaned")
    table = Table(name="dialogues", columns=columns, rows=tuple(rows))
    return Outcome(
        facts=facts,
        artifacts={"dialogues": f"artifacts/{FOLDER}"},
        evaluations=(Evaluation(name="dialogues", tables=(table,)),),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
