"""Write the generated set in M2KR's two formats: flat JSONL of nine fields, and the hub's parquet tables.

    <folder>/images.tar                                   members google/<code>.png, twitter/<code>.png
    <folder>/oven_train.jsonl, oven_passages_train.jsonl  and so on: flat; val and test likewise
    <folder>/OVEN_data/train-00000-of-00001.parquet       hub: splits train, valid, test
    <folder>/OVEN_passages/train_passages-00000-of-00001.parquet

A missing value is null in some flat files and "NA" in others, a single positive a scalar in some and a list in others,
as in the files they stand for.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ablab import bundled
from ablab.contract.failure import DataError
from ablab.data import emoji
from ablab.data.emoji import Concept, divide
from ablab.data.mini_m2kr.subsets import SHAPES, Passage, Query, Subset, generate
from ablab.data.sources import SPLITS, Split

Form = Literal["flat", "hub"]
#: What the hub calls the splits.
HUB_SPLITS: Mapping[Split, str] = {"train": "train", "val": "valid", "test": "test"}
#: What a missing value is in the flat files of a subset; null elsewhere.
_MISSING = {"infoseek": "NA", "okvqa": "NA"}
#: The nine fields of a flat row, in their order.
FIELDS = (
    "answer", "data_id", "dataset_id", "image_path", "instruction", "passage_id", "passage_image_path",
    "passage_text", "question",
)  # fmt: skip


def write_mini_m2kr(
    folder: str | os.PathLike[str],
    *,
    seed: int = 2357,
    forms: Iterable[Form] = ("flat",),
    subsets: Iterable[str] = tuple(SHAPES),
    concepts: Sequence[Concept] | None = None,
    images: str | os.PathLike[str] | None = None,
    validation: float = 0.1,
    test: float = 0.15,
) -> dict[str, Any]:
    """Write the set and return its counts: {subset: {split: {"queries", "passages"}}, "images": count}.

    Args:
        folder: where; created.
        seed: of division, wordings and gaps; the same for every seed of a study.
        forms: flat, hub, or both.
        subsets: names of `SHAPES`.
        concepts: what is asked about; None takes the bundled ones.
        images: folder with google.tar and twitter.tar; None takes the bundled one.
        validation, test: shares of the concepts.

    Raises:
        ConfigError: there is no such subset.
        DataError: a drawing is missing.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    concepts = emoji.concepts() if concepts is None else concepts
    division = divide(concepts, seed=seed, validation=validation, test=test)
    counts: dict[str, Any] = {}
    for name in subsets:
        subset = generate(concepts, subset=name, division=division, seed=seed)
        for form in forms:
            (_write_flat if form == "flat" else _write_hub)(target, subset)
        counts[name] = {
            split: {"queries": len(subset.queries[split]), "passages": len(subset.pools[split])} for split in SPLITS
        }
    counts["images"] = write_images(
        target / "images.tar",
        Path(images) if images is not None else bundled.path("emoji"),
        codes=[concept.code for concept in concepts],
    )
    return counts


def write_images(target: Path, source: Path, *, codes: Sequence[str]) -> int:
    """Join the vendors' drawings into one file with members <vendor>/<code>.png; return how many."""
    wanted = {f"{code}.png" for code in codes}
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as out:
        for vendor in ("google", "twitter"):
            found = set()
            with tarfile.open(source / f"{vendor}.tar") as drawings:
                for member in drawings:
                    name = member.name.removeprefix("./")
                    if name in wanted and (file := drawings.extractfile(member)) is not None:
                        found.add(name)
                        _add(out, f"{vendor}/{name}", file.read())
            if missing := sorted(wanted - found):
                raise DataError(
                    f"{source / f'{vendor}.tar'}: no drawing {', '.join(missing[:3])} ({len(missing)} missing); "
                    "install ablab again",
                    file=str(source / f"{vendor}.tar"),
                    row=None,
                )
    return 2 * len(wanted)


def _add(out: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    out.addfile(entry, io.BytesIO(content))


def _write_flat(folder: Path, subset: Subset) -> None:
    missing = _MISSING.get(subset.name)
    for split in SPLITS:
        pool = {passage.id: passage for passage in subset.pools[split]}
        with (folder / f"{subset.name}_{split}.jsonl").open("w", encoding="utf-8") as file:
            for query in subset.queries[split]:
                file.write(json.dumps(_flat_row(query, pool, subset, missing), ensure_ascii=False) + "\n")
        with (folder / f"{subset.name}_passages_{split}.jsonl").open("w", encoding="utf-8") as file:
            for passage in pool.values():
                row = {
                    "passage_id": passage.id,
                    "passage_text": passage.text,
                    "passage_image_path": passage.image or missing,
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _flat_row(query: Query, pool: Mapping[str, Passage], subset: Subset, missing: str | None) -> dict[str, Any]:
    positives = [pool[name] for name in query.positives]
    lists: dict[str, Any] = {
        "passage_id": [passage.id for passage in positives],
        "passage_text": [passage.text for passage in positives],
        "passage_image_path": [passage.image or missing for passage in positives],
    }
    if len(positives) == 1:
        lists = {name: values[0] for name, values in lists.items()}
    values = {
        "answer": list(query.answers),
        "data_id": query.id,
        "dataset_id": subset.name,
        "image_path": query.image or missing,
        "instruction": query.instruction,
        "question": query.question,
        **lists,
    }
    return {name: values[name] for name in FIELDS}


def _write_hub(folder: Path, subset: Subset) -> None:
    task = subset.shape.task
    for split, hub_split in HUB_SPLITS.items():
        pool = {passage.id: passage for passage in subset.pools[split]}
        rows = [_hub_row(query, pool, task) for query in subset.queries[split]]
        _write_table(folder / f"{task}_data" / f"{hub_split}-00000-of-00001.parquet", rows)
        passages = [
            {
                "passage_id": passage.id,
                "passage_content": passage.text,
                "title": passage.title,
                "language": passage.language,
                "img_path": passage.image,
            }
            for passage in pool.values()
        ]
        _write_table(folder / f"{task}_passages" / f"{hub_split}_passages-00000-of-00001.parquet", passages)


def _hub_row(query: Query, pool: Mapping[str, Passage], task: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "question_id": query.id,
        "question": query.question,
        "instruction": query.instruction,
        "img_id": None if query.image is None else query.concept.code,
        "img_path": query.image,
        "image_id": None if query.image is None else query.concept.code,
        "pos_item_ids": list(query.positives),
        "pos_item_contents": [pool[name].text for name in query.positives],
    }
    if task == "OVEN":
        return row | {"wiki_entity": query.concept.name, "wiki_entity_id": query.concept.code}
    if task == "OKVQA":
        # The hub's OKVQA has neither of the two image ids.
        row = {name: value for name, value in row.items() if name not in ("img_id", "image_id")}
    kind = "textual" if query.kind == "words" else "visual"
    return row | {"answers": list(query.answers), "gold_answer": query.answers[0], "question_type": kind}


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    strings = {"pos_item_ids", "pos_item_contents", "answers"}
    names = list(rows[0]) if rows else []
    schema = pa.schema([(name, pa.list_(pa.string()) if name in strings else pa.string()) for name in names])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
