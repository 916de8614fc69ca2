"""The prepare stage: sets of one's own checked and indexed, generated ones written, a tokenizer trained."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ablab.contract.context import Context
from ablab.contract.failure import StopRequested
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.data.emoji_questions import SETS as GENERATED
from ablab.data.emoji_questions import Sizes, write_emoji_questions
from ablab.data.images import ImageSource
from ablab.data.rendering.settings import Rendered
from ablab.store.files import write_json
from ablab.tasks.vision_language.sections import Data, DataSet
from ablab.tasks.vision_language.sets import QUESTIONS, SETS, TOKENIZER, write_set

#: Folder of drawn sets.
RENDERED = "rendered"
#: Tokens with a meaning: ends of answers of all templates, padding, and the place of an image.
SPECIAL = ("<pad>", "<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<eos>", "<image>")


def prepare(data: Data, context: Context) -> Outcome:
    """Write sets, questions and tokenizer below the run's artifacts; an attempt that was cut off begins anew.

    Raises:
        DataError: rows are damaged, beyond what data.max_skipped allows.
        StopRequested: a stop was asked for.
    """
    artifacts = context.artifacts
    for name in (SETS, QUESTIONS, TOKENIZER, RENDERED):
        shutil.rmtree(artifacts / name, ignore_errors=True)
    facts: dict[str, object] = {}
    counts: dict[str, dict[str, int]] = {}
    if data.generated is not None:
        facts |= _generate(data, context)
        images = ImageSource(artifacts / QUESTIONS / "images.tar")
        for name in GENERATED:
            file = artifacts / QUESTIONS / f"{name}.jsonl"
            counts[name] = write_set(
                artifacts / SETS / name, [file], images=images, place=f"{QUESTIONS}/images.tar", max_skipped=0
            )
            file.unlink()
    for name, drawn in data.rendered.items():
        counts[name], found = _drawn(drawn, name, context)
        facts |= found
    for name, given in data.own.items():
        counts[name] = _own(data, given, name, context)
    if data.tokenizer is not None:
        facts["vocabulary"] = _train_tokenizer(data.tokenizer.vocabulary, artifacts, list(counts))
    return _outcome(counts, facts)


def _generate(data: Data, context: Context) -> dict[str, object]:
    wanted = data.generated
    assert wanted is not None
    sizes = Sizes(**{name: getattr(wanted, name) for name in Sizes.__dataclass_fields__})

    def progress(done: int, total: int) -> None:
        context.progress(done, total, unit="files")
        _stop(context)

    found = write_emoji_questions(context.artifacts / QUESTIONS, seed=wanted.seed, sizes=sizes, progress=progress)
    return dict(found)


def _drawn(drawn: Rendered, name: str, context: Context) -> tuple[dict[str, int], dict[str, object]]:
    """Draw a set of lines, documents, tables and charts below the artifacts and index it."""
    from ablab.data.rendering.sets import IMAGES, write_rendered

    def progress(done: int, total: int) -> None:
        context.progress(done, total, unit=f"pictures of {name}")
        _stop(context)

    folder = context.artifacts / RENDERED / name
    found = write_rendered(folder, drawn, name=name, progress=progress)
    place = f"{RENDERED}/{name}/{IMAGES}"
    images = ImageSource(folder / IMAGES)
    counts = write_set(context.artifacts / SETS / name, [folder / f"{name}.jsonl"], images=images, place=place)
    return counts, {f"{name}.{fact}": value for fact, value in found.items()}


def _own(data: Data, given: DataSet, name: str, context: Context) -> dict[str, int]:
    base = Path(context.order.study_folder or ".")
    images = None if given.images is None else ImageSource(base / Path(given.images).expanduser())

    def between(rows: int) -> None:
        context.progress(0, 1, unit=f"{rows} rows of {name}")
        _stop(context)

    return write_set(
        context.artifacts / SETS / name,
        [base / Path(file).expanduser() for file in given.files],
        images=images,
        place=given.images,
        max_skipped=data.max_skipped,
        open_images=data.check_images == "open",
        limit=given.limit,
        language=given.language,
        between=between,
    )


def _stop(context: Context) -> None:
    if context.stop_requested():
        raise StopRequested("stopped while preparing data; it starts again from the beginning")


def _train_tokenizer(vocabulary: int, artifacts: Path, names: list[str]) -> int:
    """Train a byte-level BPE on the texts of all sets but the validation's, and save it in transformers' format."""
    # Its own threads would outnumber those of the run.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers as library

    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(_texts(artifacts, [name for name in names if name != "val"]), trainer)
    folder = artifacts / TOKENIZER
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "additional_special_tokens": [token for token in SPECIAL if token not in ("<pad>", "</s>")],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
    }
    write_json(folder / "tokenizer_config.json", settings)
    return int(made.get_vocab_size())


def _texts(artifacts: Path, names: list[str]) -> Iterator[str]:
    for name in sorted(names):
        with (artifacts / SETS / name / "rows.jsonl").open(encoding="utf-8") as file:
            for line in file:
                yield from (turn["value"].replace("<image>", " ") for turn in json.loads(line)["conversations"])


def _outcome(counts: dict[str, dict[str, int]], facts: dict[str, object]) -> Outcome:
    columns = ("set", "rows", "images", "left out")
    rows = tuple((name, each["rows"], each["images"], each["skipped"]) for name, each in counts.items())
    for name, each in counts.items():
        facts |= {f"rows.{name}": each["rows"], f"images.{name}": each["images"], f"skipped.{name}": each["skipped"]}
    artifacts = {"sets": f"artifacts/{SETS}"}
    return Outcome(
        facts=facts,
        artifacts=artifacts,
        evaluations=(Evaluation(name="data", tables=(Table(name="sets", columns=columns, rows=rows),)),),
    )
