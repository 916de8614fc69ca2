"""What preparing leaves, and what it says about the data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ablab.contract.failure import ConfigError, DataError, StopRequested
from ablab.contract.order import Input
from ablab.data.images import Framing, ImageSource
from ablab.data.m2kr import read_passages, read_queries
from ablab.data.pairs import Pairs
from ablab.tasks.retrieval.config import RetrievalTrain
from ablab.tasks.retrieval.preparation import FOLDER, prepare
from ablab.tasks.retrieval.sections import Data, Loss, Model, Towers
from ablab.tasks.retrieval.task import Retrieval


def test_rows_are_those_of_the_files(pairs: Pairs, files: Path) -> None:
    for split in ("train", "val", "test"):
        rows = pairs.queries(split)
        queries = list(read_queries(files / f"okvqa_{split}.jsonl"))
        assert len(rows) == len(queries)
        for row, query in zip(rows, queries, strict=True):
            assert (row["id"], row["text"], row["answers"]) == (query.id, query.text, list(query.answers))
            assert [pairs.passages[p]["id"] for p in row["positives"]] == [p.id for p in query.positives]
            assert row["image"] == (None if query.image is None else pairs.pictures.names.index(query.image))
        pool = {pairs.passages[int(p)]["id"] for p in pairs.pool(split)}
        assert pool == {p.id for p in read_passages(files / f"okvqa_passages_{split}.jsonl")}


def test_images_are_kept_as_they_would_be_decoded(pairs: Pairs, files: Path) -> None:
    source, framing = ImageSource(files / "images.tar"), Framing(size=16, aspect="crop")
    batch = pairs.pictures.batch([3, None])
    assert np.array_equal(batch[0], framing.frame(source.open(pairs.pictures.names[3])))
    assert not batch[1].any()
    assert np.array_equal(pairs.pictures.load(3), batch[0])


def test_facts_count_what_audits_ask_for(pairs: Pairs) -> None:
    facts = pairs.manifest["facts"]
    rows = list(pairs.queries("train"))
    shares: Counter[int] = Counter()
    for row in rows:
        for positive in row["positives"]:
            shares[positive] += 1 / len(row["positives"])
    assert facts["positives.distinct.train"] == len(shares)
    # The chance that two queries draw the same positive, by drawing.
    generator = np.random.default_rng(0)
    drawn = [generator.choice(row["positives"], size=4000) for row in rows]
    pairs_ = [(a, b) for a in range(len(rows)) for b in range(a)]
    same = np.mean([(drawn[a][:200] == drawn[b][:200]).mean() for a, b in pairs_])
    assert facts["positives.collision.train"] == pytest.approx(same, rel=0.1)
    assert facts["overlap.test_in_train"] == 0 and facts["overlap.test_positives_in_train"] == 0
    assert facts["positives.outside_pool.test"] == 0


def rows_file(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def row(number: int, positive: str = "p", **more: object) -> dict:
    return {"data_id": f"q{number}", "question": f"what is {number}?", "passage_id": positive,
            "passage_text": f"It is {positive}.", **more}  # fmt: skip


def prepared(tmp_path: Path, contexts, **data: object) -> Pairs:
    section = Data(**{"source": "files", "tokenizer": {"name": "bytes"}, "validation": 0, **data})
    outcome = prepare(section, contexts(tmp_path / "run"))
    assert outcome.evaluations[0].tables
    return Pairs(tmp_path / "run" / "artifacts" / FOLDER)


def test_what_no_pool_holds_and_what_the_test_repeats_is_counted(tmp_path: Path, contexts) -> None:
    train = rows_file(tmp_path / "train.jsonl", row(1, "a"), row(2, "b"))
    test = rows_file(tmp_path / "test.jsonl", row(1, "a"), row(3, "c"))
    pool = rows_file(tmp_path / "pool.jsonl", {"passage_id": "a", "passage_text": "It is a."})
    facts = prepared(
        tmp_path, contexts, queries={"train": (train,), "test": (test,)}, passages={"test": (pool,)}
    ).manifest["facts"]
    assert facts["positives.outside_pool.test"] == 1
    assert facts["overlap.test_in_train"] == 1 and facts["overlap.test_positives_in_train"] == 0.5


def test_validation_is_divided_off_by_image(tmp_path: Path, contexts, files: Path) -> None:
    images = ["google/1f600.png", "google/1f603.png", "google/1f604.png", "google/1f601.png", "google/1f606.png"]
    rows = [row(n, image_path=images[n % 5]) for n in range(40)]
    pairs = prepared(
        tmp_path, contexts, queries={"train": (rows_file(tmp_path / "t.jsonl", *rows),)}, validation=0.4,
        images=str(files / "images.tar"), image_size=16,
    )  # fmt: skip
    train, val = ({each["image"] for each in pairs.queries(split)} for split in ("train", "val"))
    assert train and val and not train & val
    assert len(pairs.queries("train")) + len(pairs.queries("val")) == 40


def test_train_queries_without_positive_are_left_out_and_counted(tmp_path: Path, contexts) -> None:
    known_by_id = {"data_id": "q9", "question": "?", "passage_id": "nowhere"}
    pairs = prepared(tmp_path, contexts, queries={"train": (rows_file(tmp_path / "t.jsonl", row(1), known_by_id),)})
    assert len(pairs.queries("train")) == 1
    assert pairs.manifest["facts"]["data.train queries without positive, left out"] == 1


def test_rows_are_drawn_evenly_from_strata(tmp_path: Path, contexts) -> None:
    rows = [row(n, question=("who" if n % 10 == 0 else "what") + f" is {n}?") for n in range(200)]
    source = rows_file(tmp_path / "t.jsonl", *rows)
    pairs = prepared(tmp_path, contexts, queries={"train": (source,)}, rows=30, strata=("question-word",))
    words = Counter(each["text"].split()[0] for each in pairs.queries("train"))
    assert words == {"who": 15, "what": 15}
    again = prepared(tmp_path / "more", contexts, queries={"train": (source,)}, rows=60, strata=("question-word",))
    # Rows are drawn by their ids: more of them hold the fewer; a stratum that is too small is made up for.
    assert {each["id"] for each in pairs.queries("train")} <= {each["id"] for each in again.queries("train")}
    assert Counter(each["text"].split()[0] for each in again.queries("train")) == {"who": 20, "what": 40}


def test_both_sides_keeps_complete_queries(tmp_path: Path, contexts, files: Path) -> None:
    whole = row(1, image_path="google/1f600.png", passage_image_path="twitter/1f600.png")
    pairs = prepared(
        tmp_path, contexts, queries={"train": (rows_file(tmp_path / "t.jsonl", whole, row(2)),)},
        images=str(files / "images.tar"), image_size=16, both_sides=True,
    )  # fmt: skip
    assert [each["id"] for each in pairs.queries("train")] == ["q1"]


@pytest.mark.parametrize("validation", [0, 0.5])
def test_both_sides_takes_images_that_the_pool_alone_has(
    tmp_path: Path, contexts, files: Path, validation: float
) -> None:
    """The hub's tables of queries name passages by id and text."""
    rows = [
        {"question_id": f"q{n}", "question": f"what is {n}?", "img_path": f"google/1f6{n:02}.png",
         "pos_item_ids": ["a", "b"], "pos_item_contents": ["It is a.", "It is b."]}
        for n in range(8)
    ]  # fmt: skip
    rows[1]["img_path"] = "NA"
    pool = [{"passage_id": name, "passage_content": f"It is {name}."} for name in ("a", "b")]
    given = {"both_sides": True, "images": str(files / "images.tar"), "image_size": 16, "validation": validation}
    given["queries"] = {"train": (rows_file(tmp_path / "t.jsonl", *rows),)}
    pools = {split: (rows_file(tmp_path / "p.jsonl", *pool),) for split in ("train", "test")}
    with pytest.raises(DataError, match=r"none of . train queries has .* of 2 passages in the pools 0 have an image"):
        prepared(tmp_path / "none", contexts, passages=pools, **given)
    rows_file(tmp_path / "p.jsonl", pool[0] | {"img_path": "twitter/1f600.png"}, pool[1])
    pairs = prepared(tmp_path, contexts, passages=pools, **given)
    kept = [row for split in ("train", "val") if validation or split == "train" for row in pairs.queries(split)]
    assert {row["id"] for row in kept} == {f"q{n}" for n in range(8) if n != 1}
    assert all([pairs.passages[p]["id"] for p in row["positives"]] == ["a"] for row in kept)
    left = "queries without text and image on both sides, left out"
    counted = {name: count for name, count in pairs.manifest["facts"].items() if name.endswith(left)}
    assert sum(counted.values()) == 1


def test_mistakes_and_damage_are_named(tmp_path: Path, contexts) -> None:
    with pytest.raises(DataError, match=r"no such file: .*nowhere\.jsonl"):
        prepared(tmp_path / "a", contexts, queries={"train": ("nowhere.jsonl",)})
    source = rows_file(tmp_path / "t.jsonl", row(1, image_path="x.png"))
    with pytest.raises(DataError, match=r"no folder or tar file of them; set data\.images"):
        prepared(tmp_path / "b", contexts, queries={"train": (source,)})
    context = contexts(tmp_path / "c")
    context.stop = True
    with pytest.raises(StopRequested):
        prepare(Data(source="files", queries={"train": (source,)}), context)
    assert not (tmp_path / "c" / "artifacts" / FOLDER).exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"source": "mini-m2kr", "subset": "ovne"}, "mini-m2kr has the subsets"),
        ({"source": "m2kr", "subset": "EVQB"}, "m2kr has the tasks"),
        ({"source": "emoji"}, "unknown source"),
        ({"source": "files"}, "give `queries`"),
        ({"source": "m2kr", "subset": "EVQA", "strata": ("image",)}, "say how many with rows"),
    ],
)
def test_a_section_that_cannot_work_is_refused(wrong: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Data(**wrong)


def test_open_pairs_wants_one_prepare_stage() -> None:
    from ablab.tasks.retrieval.preparation import open_pairs

    with pytest.raises(ConfigError, match="found none"):
        open_pairs([])


def test_images_that_are_not_kept_are_looked_for(tmp_path: Path, contexts, files: Path) -> None:
    """Hours later a training run would find out."""
    good = row(1, image_path="google/1f600.png")
    images = {"images": str(files / "images.tar"), "image_size": 16, "cache_images": False}
    there = prepared(tmp_path / "a", contexts, queries={"train": (rows_file(tmp_path / "a.jsonl", good),)}, **images)
    assert not (there.folder / "images.npy").exists() and there.pictures.load(0).any()
    source = rows_file(tmp_path / "t.jsonl", good, row(2, image_path="google/gone.png"), row(3, image_path="no.png"))
    with pytest.raises(DataError, match=r"google/gone\.png: no such image .* one of 2 missing of 3"):
        prepared(tmp_path / "b", contexts, queries={"train": (source,)}, **images)


def test_data_may_have_no_validation_split(tmp_path: Path, contexts, towers: Towers, model: Model) -> None:
    """Then nothing is validated, in training and in pretraining."""
    source = rows_file(tmp_path / "t.jsonl", *(row(n, f"p{n}") for n in range(8)))
    pairs = prepared(tmp_path, contexts, queries={"train": (source,)}, image_size=16)
    given = Input(reference="prepare", stage="prepare", kind="prepare", key="1", path=str(tmp_path / "run"))
    parameters = RetrievalTrain(steps=1, batch=4)
    code = Retrieval({"towers": towers, "model": model, "loss": Loss()}, inputs=(given,), parameters=parameters)
    assert code.data("val").samples == 0 and code.data("train").samples == 8
    assert list(pairs.queries("test")) == [] and len(pairs.queries("train")) == 8
    (pairs.folder / "queries-train.offsets.npy").unlink()
    with pytest.raises(DataError, match="prepare again"):
        pairs.queries("train")
