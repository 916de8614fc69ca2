"""The generated retrieval set: schema, splits, shapes and gaps, in both formats."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from ablab.contract.failure import AblabError
from ablab.data.emoji import concepts, divide
from ablab.data.mini_m2kr import SHAPES, generate, parts_of, write_mini_m2kr
from ablab.data.mini_m2kr.files import FIELDS

CONCEPTS = concepts()
DIVISION = divide(CONCEPTS)


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    counts = write_mini_m2kr(folder, forms=("flat", "hub"), concepts=CONCEPTS[::6])
    return folder, counts


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_families_stay_in_one_split_and_every_split_has_its_share():
    by_family: dict[str, set[str]] = {}
    for concept in CONCEPTS:
        by_family.setdefault(concept.family, set()).add(DIVISION[concept.code])
    assert all(len(splits) == 1 for splits in by_family.values())
    shares = Counter(DIVISION.values())
    assert 0.1 < shares["test"] / len(CONCEPTS) < 0.2 and 0.06 < shares["val"] / len(CONCEPTS) < 0.14


def test_a_division_does_not_move_when_concepts_are_added():
    assert divide(CONCEPTS[:50]).items() <= DIVISION.items()
    assert divide(CONCEPTS, seed=1) != DIVISION


def test_who_does_it_makes_no_family_of_its_own():
    named = {concept.name: concept for concept in CONCEPTS}
    assert named["man"].family == "man"
    pairs = [(a, b) for a in CONCEPTS for b in CONCEPTS if a.code < b.code and a.family == b.family]
    assert all(a.name != b.name for a, b in pairs)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_subsets_hold_their_promises(name):
    made = generate(CONCEPTS, subset=name, division=DIVISION)
    ids = [query.id for queries in made.queries.values() for query in queries]
    assert len(set(ids)) == len(ids)
    for split, queries in made.queries.items():
        pool = {passage.id: passage for passage in made.pools[split]}
        assert len(pool) == len(made.pools[split])
        for query in queries:
            said = parts_of(query.id)
            assert (said.subset, said.split, said.code) == (name, split, query.concept.code)
            assert DIVISION[said.code] == split
            assert query.positives and set(query.positives) <= set(pool)
            for positive in map(pool.get, query.positives):
                assert positive.image in (None, f"twitter/{said.code}.png")
            assert query.image in (None, f"google/{said.code}.png")
            assert query.image is not None or said.kind == "words"
        blind = {query.question for query in queries if query.kind != "words"}
        assert len(blind) < 20 < len(queries), "questions that only the picture answers name no concept"
        if split == "train":
            assert all(DIVISION.get(passage.id.split("/")[1], "train") == "train" for passage in pool.values())


def test_shapes_differ_as_the_subsets_they_stand_for():
    made = {name: generate(CONCEPTS, subset=name, division=DIVISION) for name in SHAPES}
    positives = {name: Counter(len(q.positives) for q in subset.queries["train"]) for name, subset in made.items()}
    assert set(positives["oven"]) == {1}
    per_passage = Counter(p for q in made["oven"].queries["train"] for p in q.positives)
    assert set(per_passage.values()) == {12}
    assert {1, 2, 3, 4, 5, 8, 11} - {2} <= set(positives["infoseek"]), "every bucket of candidates has rows"
    bare = [p.image is None for p in made["infoseek"].pools["test"]]
    assert 0.03 < sum(bare) / len(bare) < 0.06
    okvqa = made["okvqa"]
    assert len(okvqa.pools["test"]) > 30 * len(okvqa.queries["test"])
    assert any(q.image is None for q in okvqa.queries["train"])
    languages = Counter(parts_of(q.id).language for q in okvqa.queries["train"] if q.kind == "words")
    assert min(languages.values()) > 0.4 * sum(languages.values())


def test_the_same_seed_makes_the_same_set_and_another_another():
    one, same, other = (
        generate(CONCEPTS[:200], subset="okvqa", division=DIVISION, seed=seed).queries["train"] for seed in (1, 1, 2)
    )
    assert one == same and one != other


def test_both_formats_say_the_same(written):
    folder, counts = written
    for name, shape in SHAPES.items():
        for split, hub in (("train", "train"), ("val", "valid"), ("test", "test")):
            flat = rows_of(folder / f"{name}_{split}.jsonl")
            table = pq.read_table(folder / f"{shape.task}_data" / f"{hub}-00000-of-00001.parquet").to_pylist()
            assert len(flat) == len(table) == counts[name][split]["queries"]
            for row, other in zip(flat, table, strict=True):
                assert tuple(row) == FIELDS
                ids = row["passage_id"] if isinstance(row["passage_id"], list) else [row["passage_id"]]
                texts = row["passage_text"] if isinstance(row["passage_text"], list) else [row["passage_text"]]
                assert other["pos_item_ids"] == ids and other["pos_item_contents"] == texts
                assert other["img_path"] == (None if row["image_path"] in (None, "NA") else row["image_path"])
                assert (row["question"], row["instruction"]) == (other["question"], other["instruction"])
            pool = rows_of(folder / f"{name}_passages_{split}.jsonl")
            assert len(pool) == counts[name][split]["passages"]


def test_missing_values_are_written_both_ways(written):
    folder, _ = written
    flat = [row for row in rows_of(folder / "infoseek_train.jsonl") if isinstance(row["passage_image_path"], list)]
    assert "NA" in {path for row in flat for path in row["passage_image_path"]}
    scalars = rows_of(folder / "oven_train.jsonl")
    assert all(isinstance(row["passage_id"], str) for row in scalars)


def test_every_picture_that_is_named_can_be_opened(written):
    folder, counts = written
    with tarfile.open(folder / "images.tar") as tar:
        names = tar.getnames()
        assert len(names) == len(set(names)) == counts["images"]
        pictures = {Image.open(io.BytesIO(tar.extractfile(name).read())).size for name in names[::50]}
    assert pictures == {(48, 48)}
    named = {row["image_path"] for row in rows_of(folder / "oven_train.jsonl")}
    assert named <= set(names)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(AblabError, match="no subset 'wit'; there are oven"):
        generate(CONCEPTS[:5], subset="wit", division=DIVISION)
    with pytest.raises(AblabError, match="nothing to train on"):
        divide(CONCEPTS[:5], validation=0.5, test=0.5)
    with pytest.raises(AblabError, match="no id of the generated set"):
        parts_of("oven/train")
    with tarfile.open(tmp_path / "google.tar", "w"):
        pass
    with pytest.raises(AblabError, match=r"google.tar: no drawing 1f600.png"):
        write_mini_m2kr(tmp_path, subsets=("evqa",), concepts=CONCEPTS[:3], images=tmp_path)
