"""A hub cache whose repositories have the names and the files that the study's full profile names, all of them tiny.

The towers are a CLIPModel of nine text and twelve vision layers of unlike widths, with the tokenizer and the
preprocessor files of the real repository. The data set is M2KR's parquet tables with the columns of its card, each
subset's own: nulls, lists, objects and "NA" among them; passages have texts and no images there. E-VQA and OK-VQA with
images on both sides are flat files of nine fields, as the log read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablab.tasks.retrieval.sections import M2KR
from tests.tasks.full_profiles import new_repository

REVISION = "c" * 40
PAIR = "wkcn/TinyCLIP-ViT-61M-32-Text-29M-LAION400M"
TASKS = ("OVEN", "Infoseek", "EVQA")
FLAT = "OKVQA"
#: Queries by subset and split, and which splits of passages there are.
QUERIES = {
    "OVEN": {"train": 9, "valid": 4, "test": 5}, "Infoseek": {"train": 24, "test": 5},
    "EVQA": {"train": 9, "valid": 8, "test": 8}, "OKVQA": {"train": 11, "val": 4, "test": 5},
}  # fmt: skip
THINGS = ("fox", "heron", "oak", "poppy", "bridge", "castle", "tower", "harbour", "beetle", "moth", "cedar", "church")
#: Subsets of which there are flat files, and what their validation split is called on the hub.
FILES = {"EVQA": "valid", "OKVQA": "val"}
#: The passage of the flat files without an image, and the rows of OK-VQA's train split that lack one: of their
#: passages, their own.
UNSEEN, ONE_SIDE = "poppy", (3, 6)
#: Rows of EVQA's train split that lack what they lack: an image twice, the positives once.
NO_IMAGE, NA_IMAGE, NO_POSITIVE = 2, 5, 7
#: A passage longer than the text tower takes, and one that no pool has, of the test query that asks for it.
LONG, OUTSIDE, OUTSIDE_TEXT = "EVQA_fox", "EVQA_unsearched", "It is in no pool."
INSTRUCTION = "Using the provided image, obtain documents that address the subsequent question:"
_WORDS = ("what", "which", "how", "who", "where")


def text_of(task: str, thing: str) -> str:
    """Return what the passage about a thing says."""
    told = f"The {thing} is known in {task}. A {thing} may be seen in spring; its colour is that of the {thing}."
    return " ".join([told] * 12) if f"{task}_{thing}" == LONG else told


def question_of(row: int, thing: str) -> str:
    """Return what a query asks about a thing; the first word goes through all of them."""
    return f"{_WORDS[row % len(_WORDS)]} is the {thing} of this picture?"


def image_of(task: str, split: str, row: int) -> str:
    """Return an image's path as the subset writes it."""
    if task == "OVEN":
        return f"{row % 6:02}/oven_{len(split)}{row:07}.jpg"
    if task == "Infoseek":
        return f"oven_{row:08}.JPEG" if split == "train" else f"oven_9{row:07}.jpg"
    if task == "OKVQA":
        part = "train2014" if split == "train" else "val2014"
        return f"{part}/COCO_{part}_{row:012}.jpg"
    return f"inat/{split}/0{row}_Animalia/{row}.jpg" if row % 2 else f"google-landmark/{split}/a/b/{row}.jpg"


def write_hub(root: Path) -> None:
    """Write both repositories below a hub cache folder."""
    _write_towers(new_repository(root, PAIR, revision=REVISION))
    folder = root / f"datasets--{M2KR.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(REVISION)
    _write_set(folder)


def _write_towers(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from ablab.contract.models import ModelReference
    from ablab.models.hub import load_model

    size = _write_tokenizer(folder)
    text = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 9,
            "vocab_size": size, "max_position_embeddings": 77, "hidden_act": "gelu"}  # fmt: skip
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 12,
              "image_size": 224, "patch_size": 32, "hidden_act": "gelu"}  # fmt: skip
    config = {"model_type": "clip", "projection_dim": 16, "text_config": text, "vision_config": vision}
    model: Any = load_model(ModelReference(config=config), kind="clip", seed=61)
    model.save_pretrained(folder)
    # Checkpoints of that time hold the positions too.
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    weights["vision_model.embeddings.position_ids"] = torch.arange(50)[None]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    processor = {
        "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def _write_tokenizer(folder: Path) -> int:
    """Write CLIP's files: words in lower case, cut into pieces of which the last ends in </w>."""
    import tokenizers
    import transformers

    made = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = ["<|startoftext|>", "<|endoftext|>"]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=alphabet, end_of_word_suffix="</w>",
        show_progress=False,
    )  # fmt: skip
    texts = [INSTRUCTION, *(text_of(task, thing) for task in (*TASKS, FLAT) for thing in THINGS)]
    made.train_from_iterator([*texts, *(question_of(row, thing) for row in range(5) for thing in THINGS)], trainer)
    made.model.save(str(folder))
    real: Any = transformers.CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=77
    )
    real.save_pretrained(folder)
    return len(real)


def _write_set(folder: Path) -> None:
    """Write the tables and the card as the hub's cache holds them: blobs, and links to them by name."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import yaml
    from datasets import Features

    snapshot, blobs = folder / "snapshots" / REVISION, folder / "blobs"
    blobs.mkdir()
    infos, configs = [], []
    for task in TASKS:
        for config, tables in (
            (f"{task}_data", {s: _data(task, s) for s in QUERIES[task]}),
            (f"{task}_passages", {f"{s}_passages": _passages(task, s) for s in QUERIES[task]}),
        ):
            splits = []
            for split, rows in tables.items():
                table = pa.Table.from_pylist(rows, schema=_schema(config))
                name = f"{config}/{split}-00000-of-00001.parquet"
                blob = blobs / hashlib.sha256(name.encode()).hexdigest()
                pq.write_table(table, blob)
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                (snapshot / name).symlink_to(Path("../../../blobs", blob.name))
                splits.append({"name": split, "num_bytes": table.nbytes, "num_examples": len(rows)})
            features = Features.from_arrow_schema(_schema(config))._to_yaml_list()
            infos.append({"config_name": config, "features": features, "splits": splits})
            files = [{"split": split, "path": f"{config}/{split}-*"} for split in tables]
            configs.append({"config_name": config, "data_files": files})
    card = yaml.safe_dump({"license": "mit", "dataset_info": infos, "configs": configs}, sort_keys=False)
    (snapshot / "README.md").write_text(f"---\n{card}---\n# M2KR\n")


def _schema(config: str) -> Any:
    """Return the columns of a table as the card lists them."""
    import pyarrow as pa

    task, _, kind = config.partition("_")
    texts, text = pa.list_(pa.string()), pa.string()
    if kind == "passages":
        names = ["language", "passage_id", "passage_content"] + ["title"] * (task == "Infoseek")
        return pa.schema([(name, text) for name in names])
    box = pa.list_(pa.struct({"class": text, "ocr": pa.list_(text), "rect": pa.list_(pa.float64())}))
    common = {"pos_item_ids": texts, "pos_item_contents": texts, "img_path": text, "question_id": text,
              "question": text, "instruction": text}  # fmt: skip
    own: dict[str, dict[str, Any]] = {
        "OVEN": {"img_id": text, "image_id": text, "wiki_entity": text, "wiki_entity_id": text},
        "EVQA": {"img_id": text, "image_id": text, "answers": texts, "gold_answer": text, "question_type": text},
        "Infoseek": {
            "img_id": text, "image_id": text, "image_path": text, "answers": texts, "answer_eval": texts,
            "data_split": text, "wikidata_value": pa.float64(), "wikidata_range": pa.list_(pa.float64()),
            "entity_id": text, "entity_text": text, "gold_answer": text, "objects": box, "related_item_ids": texts,
            "found": pa.bool_(), "question_type": text,
        },
    }  # fmt: skip
    return pa.schema(list({**common, **own[task]}.items()))


def _passages(task: str, split: str) -> list[dict[str, Any]]:
    return [
        {"language": "en", "passage_id": f"{task}_{thing}", "passage_content": text_of(task, thing), "title": thing}
        for thing in THINGS
    ]


def _data(task: str, split: str) -> list[dict[str, Any]]:
    rows = []
    for number in range(QUERIES[task][split]):
        # Many queries of OVEN share a passage; those of the others have one to three.
        things = [THINGS[(number + step) % len(THINGS)] for step in range(1 + number % 3)]
        things = [THINGS[number % 4]] if task == "OVEN" else things
        path = image_of(task, split, number)
        rows.append({
            "pos_item_ids": [f"{task}_{thing}" for thing in things],
            "pos_item_contents": [text_of(task, thing) for thing in things],
            "img_id": str(number), "image_id": str(number), "img_path": path, "image_path": f"images/{path}",
            "question_id": f"{task}_{split}_{number}", "question": question_of(number, things[0]),
            "instruction": INSTRUCTION, "answers": [things[0], "NA"][: 1 + number % 2], "gold_answer": things[0],
            "question_type": "templated" if number % 2 else "automatic", "wikidata_value": None,
            "wikidata_range": [1.0, 2.0], "entity_id": f"Q{number}", "related_item_ids": [],
            "objects": [{"class": "thing", "ocr": [], "rect": [0.0, 1.0]}],
        })  # fmt: skip
    if task == "EVQA":
        _damage(rows, split)
    return rows


def _damage(rows: list[dict[str, Any]], split: str) -> None:
    """Leave out of EVQA what sets of this kind leave out."""
    if split == "train":
        rows[NO_IMAGE]["img_path"], rows[NA_IMAGE]["img_path"] = None, "NA"
        rows[NO_POSITIVE] |= {"pos_item_ids": [], "pos_item_contents": []}
    if split == "test":
        rows[-1] |= {"pos_item_ids": [OUTSIDE], "pos_item_contents": [OUTSIDE_TEXT]}


def write_flat(folder: Path) -> None:
    """Write queries, and the passages of the test, as JSONL of nine fields, lists and scalars among them."""
    folder.mkdir(parents=True)
    for task, validation in FILES.items():
        for split in QUERIES[task]:
            rows = [_flat(task, row, split, n) for n, row in enumerate(_data(task, split))]
            _write_lines(folder / f"{task.lower()}_{'val' if split == validation else split}.jsonl", rows)
        pool = [
            {"passage_id": f"{task}_{thing}", "passage_text": text_of(task, thing), "passage_image_path": _seen(thing)}
            for thing in THINGS
        ]
        _write_lines(folder / f"{task.lower()}_passages_test.jsonl", pool)


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _seen(thing: str) -> str:
    return f"wiki/{thing}.jpg" if thing in THINGS and thing != UNSEEN else "NA"


def _flat(task: str, row: dict[str, Any], split: str, number: int) -> dict[str, Any]:
    names = [name.partition("_")[2] for name in row["pos_item_ids"]]
    lists: dict[str, Any] = {
        "passage_id": row["pos_item_ids"], "passage_text": row["pos_item_contents"],
        "passage_image_path": [_seen(name) for name in names],
    }  # fmt: skip
    if len(names) == 1:
        lists = {name: values[0] for name, values in lists.items()}
    image = None if (task, split, number) == (FLAT, "train", ONE_SIDE[1]) else row["img_path"]
    return {"answer": row["answers"], "data_id": row["question_id"], "dataset_id": task.lower(), "image_path": image,
            "instruction": row["instruction"], "question": row["question"], **lists}  # fmt: skip


def images(task: str) -> Iterable[str]:
    """Yield the images that a subset names, those of its passages too."""
    for split in QUERIES[task]:
        yield from (row["img_path"] for row in _data(task, split) if row["img_path"] not in (None, "NA"))
    if task in FILES:
        yield from (_seen(thing) for thing in THINGS if thing != UNSEEN)


def write_images(folder: Path) -> None:
    """Write the images of all subsets below a folder, each in the folder of its subset."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for task in (*TASKS, FLAT):
        for name in images(task):
            path = folder / task / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path, format="JPEG")
