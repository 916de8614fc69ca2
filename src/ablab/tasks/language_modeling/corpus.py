"""The prepare stage of language modelling: from the section `data` to a prepared corpus, and the way back to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from ablab.contract.context import Context
from ablab.contract.failure import StopRequested
from ablab.contract.order import Input
from ablab.contract.registry import find_component, is_file_reference
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.contract.task import DataReference
from ablab.data.corpora import Limits, Prepared, prepare_corpus
from ablab.data.division import Division
from ablab.data.documents import Document, corrupt
from ablab.data.sources import SPLITS, Source, Split, bundled_source, files_source, hub_source
from ablab.store.hub import lock_name
from ablab.store.inputs import prepared_artifacts
from ablab.tasks.language_modeling.config import Prepare
from ablab.tasks.language_modeling.sections import Data

#: Folder of the corpus below a prepare run's artifacts.
FOLDER = "corpus"


def prepare(data: Data, parameters: Prepare, context: Context) -> Outcome:
    """Write the corpus below the run's artifacts, unless an earlier attempt has finished it.

    Raises:
        DataError, ConfigError, DiskFullError: as `ablab.data.corpora.prepare_corpus`.
        StopRequested: a stop was asked for; nothing half-written stays.
    """
    target = context.artifacts / FOLDER

    def progress(done: float, total: float, unit: str) -> None:
        context.progress(done, total, unit=unit)
        if context.stop_requested():
            raise StopRequested("stopped while preparing data; it starts again from the beginning")

    if target.exists():
        corpus = Prepared(target)
    else:
        corpus = prepare_corpus(
            open_source(data, revisions=context.order.revisions, folder=context.order.study_folder),
            target,
            tokenizer=data.tokenizer.name,
            vocabulary=data.tokenizer.vocabulary,
            division=Division(validation=data.splits.validation, test=data.splits.test, seed=data.splits.seed),
            limits=Limits(documents=data.max_documents, tokens=data.max_tokens),
            workers=parameters.workers,
            shard_tokens=parameters.shard_tokens,
            progress=progress,
        )
    return _outcome(corpus)


def open_source(data: Data, *, revisions: Mapping[str, str], folder: str | None) -> Source:
    """Return the readers of what the section `data` names.

    Args:
        data: the section.
        revisions: hub revisions by lock name.
        folder: where relative paths start.
    """
    if is_file_reference(data.source):
        return own_source(data.source, folder=folder)
    hub = data.hub()
    if hub is not None:
        name, subset = hub
        locked = revisions.get(lock_name(DataReference(kind="hub", name=name)))
        return hub_source(
            name,
            subset=subset,
            revision=locked,
            field=data.text_field,
            official=data.splits.official,
            # The beginning of a set of many gigabytes needs no copy of all of it.
            streaming=data.max_tokens is not None or data.max_documents is not None,
        )
    if data.source != "files":
        return bundled_source(data.source)
    return files_source(
        data.files,
        folder=folder,
        validation_files=data.validation_files,
        test_files=data.test_files,
        field=data.text_field,
        documents=data.documents,
    )


def reader(split: str, *, folder: str | None) -> Iterable[str]:
    """Stand for the signature of a reader of one's own: yields the texts of "train", and of "val" and "test" if it has.

    `folder` is the study's, where its relative paths start.
    """
    raise TypeError("only its signature is used")


def own_source(reference: str, *, folder: str | None) -> Source:
    """Return what a reader of one's own yields; a split without texts is divided off the train split.

    Raises:
        DataError: what it yields is no text; the message says which.
    """
    read = find_component(reference, folder=folder, like=reader)
    file = reference.rpartition(":")[0]

    def documents(split: Split) -> Iterator[Document]:
        for row, text in enumerate(read(split, folder=folder), start=1):
            if not isinstance(text, str):
                corrupt(file, row, f"{reference} yielded {type(text).__name__} as text of {split}", "yield str")
            yield Document(text, file, row)

    readers: dict[Split, Callable[[], Iterator[Document]]] = {"train": partial(documents, "train")}
    for split in SPLITS[1:]:
        if next(iter(documents(split)), None) is not None:
            readers[split] = partial(documents, split)
    return Source(name=reference, readers=readers, record={"source": reference})


def open_corpus(inputs: Iterable[Input]) -> Prepared:
    """Return the prepared corpus among a stage's inputs, or behind them: an evaluation may need only its training.

    Raises:
        ConfigError: there is none, or there are several.
    """
    return Prepared(prepared_artifacts(inputs) / FOLDER)


def _outcome(corpus: Prepared) -> Outcome:
    """Return counts by split as facts and as a table."""
    facts: dict[str, object] = {
        "vocabulary": corpus.vocabulary,
        "tokenizer": corpus.manifest["tokenizer"]["name"],
        "source": corpus.manifest["source"],
    }
    rows = []
    for split in corpus.splits:
        counts = corpus.counts(split)
        facts |= {
            f"tokens.{split}": counts.tokens,
            f"documents.{split}": counts.documents,
            f"words.{split}": counts.words,
            f"bytes.{split}": counts.bytes,
        }
        ratio = counts.bytes / counts.tokens if counts.tokens else 0.0
        rows.append((split, counts.documents, counts.tokens, counts.words, counts.bytes, round(ratio, 3)))
    columns = ("split", "documents", "tokens", "words", "bytes", "bytes per token")
    table = Table(name="corpus", columns=columns, rows=tuple(rows))
    return Outcome(
        facts=facts,
        artifacts={"corpus": f"artifacts/{FOLDER}"},
        evaluations=(Evaluation(name="corpus", tables=(table,)),),
    )
