"""The generated questions: nothing of the test is seen in training, answers are right, equal seeds make equal files."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablab.data.conversations import parse, read_rows
from ablab.data.emoji_questions import BENCHMARKS, SETS, Sizes, write_emoji_questions
from ablab.data.emoji_questions.asking import Asker
from ablab.data.emoji_questions.rows import Rows
from ablab.data.emoji_questions.scenes import PLACES, several, single
from ablab.data.emoji_questions.things import CATEGORIES, KINDS, Things
from ablab.data.images import ImageSource

SIZES = Sizes(captions=40, instruct=60, val=8, test=12)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    write_emoji_questions(folder, seed=5, sizes=SIZES)
    return folder


@pytest.fixture(scope="module")
def things() -> Things:
    return Things(seed=5)


def rows(made: Path, name: str) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(made / f"{name}.jsonl")]


def test_things_of_the_test_are_in_no_picture_and_no_text_of_training(made: Path, things: Things) -> None:
    held = {thing.code for split in ("val", "test") for thing in things.of(split)}
    names = {thing.name[0] for thing in things.of("test")}
    for name in ("captions", "captions-share", "instruct", "instruct-share"):
        assert not held & {code for row in rows(made, name) for code in row["concepts"]}
    for row in rows(made, "texts"):
        assert not any(turn["value"] in names for turn in row["conversations"])
    families = [{thing.name[0] for thing in things.of(split)} for split in ("train", "val", "test")]
    assert not families[0] & families[2] and not families[0] & families[1]


def test_withheld_drawings_are_in_no_training_picture(things: Things) -> None:
    shown = {(drawing.thing.code, drawing.vendor) for drawing in things.drawings("train")}
    withheld = {(drawing.thing.code, drawing.vendor) for drawing in things.withheld()}
    assert withheld and not shown & withheld
    assert {code for code, _ in withheld} <= {thing.code for thing in things.of("train")}


def test_sets_are_llavas_format_and_their_pictures_are_there(made: Path) -> None:
    source = ImageSource(made / "images.tar")
    for name in SETS:
        found = rows(made, name)
        assert found
        for number, row in enumerate(found, start=1):
            conversation = parse(row, file=name, number=number)
            assert all(image in source for image in conversation.images)
    assert source.open(rows(made, "instruct")[0]["image"]).size == (48, 48)


def test_share_differs_in_what_is_said_only(made: Path) -> None:
    for plain, share in (("captions", "captions-share"), ("instruct", "instruct-share")):
        pairs = list(zip(rows(made, plain), rows(made, share), strict=True))
        assert all(one["image"] == other["image"] and one["objects"] == other["objects"] for one, other in pairs)
        assert any(one["conversations"] != other["conversations"] for one, other in pairs)


def test_equal_seeds_make_equal_files(made: Path, tmp_path: Path) -> None:
    write_emoji_questions(tmp_path / "again", seed=5, sizes=SIZES)

    def digests(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    assert digests(made) == digests(tmp_path / "again")
    with tarfile.open(made / "images.tar") as archive:
        assert {member.mtime for member in archive} == {0}


def test_answers_are_right(things: Things) -> None:
    generator = np.random.default_rng(0)
    asker = Asker(things, korean=0.0)
    drawings = things.drawings("train")
    for number in range(60):
        one = drawings[number * 7 % len(drawings)]
        scene = single(one, generator)
        assert asker.ask("kind", scene, generator).answer == one.thing.kind[0]
        choice = asker.ask("choice", scene, generator)
        assert choice.choices["ABCD".index(choice.answer)] == one.thing.category[0]
        assert len(set(choice.choices)) == 4
        some = [drawings[i] for i in generator.integers(0, len(drawings), 3)]
        scene = several(some, generator, number=42)
        assert asker.ask("count", scene, generator).answer == "4"
        assert asker.ask("digits", scene, generator).answer == "42"
        for there in (True, False):
            asked = asker.present(scene, generator, "en", there=there, group="adversarial")
            inside = {drawing.thing.category[0] for drawing in some}
            word = asked.question.removesuffix(" in the image?").removeprefix("Is there ").split(" ", 1)[1]
            assert (word in inside) is there is (asked.answer == "yes")
        if "place" in asker.families(scene):
            asked = asker.ask("place", scene, generator)
            word = asked.question.removeprefix("Where is the ").removesuffix("?")
            (item,) = [i for i in scene.items if i.drawing is not None and i.drawing.thing.category[0] == word]
            assert item.place is not None and asked.answer == PLACES[item.place][0][0]


def test_benchmarks_are_there_and_yes_is_as_frequent_as_no(made: Path) -> None:
    assert {path.name for path in (made / "benchmarks").iterdir()} == set(BENCHMARKS)
    labels: list[str] = []
    for split in ("random", "popular", "adversarial"):
        lines = (made / "benchmarks" / "pope" / f"coco_pope_{split}.json").read_text().splitlines()
        own = [json.loads(line)["label"] for line in lines]
        assert len(own) == SIZES.test and own.count("yes") == own.count("no")
        labels += own
    assert labels.count("yes") == labels.count("no")


def test_the_benchmarks_readers_read_them(made: Path) -> None:
    from ablab.tasks.vision_language.benchmarks.catalogue import find_benchmark
    from ablab.tasks.vision_language.benchmarks.protocol import Files

    root = made / "benchmarks"
    files = {
        "gqa": Files(questions=root / "gqa/testdev_balanced_questions.json", images=root / "gqa/images"),
        "pope": Files(questions=root / "pope", images=root / "pope/images"),
        "scienceqa": Files(questions=root / "scienceqa"),
        "textvqa": Files(questions=root / "textvqa/TextVQA_val.json", images=root / "textvqa/images"),
        "vqav2": Files(
            questions=root / "vqav2/questions.json",
            answers=root / "vqav2/annotations.json",
            images=root / "vqav2/images",
        ),
        "questions": Files(questions=root / "korean/questions.jsonl", images=root / "korean/images"),
    }
    for name, where in files.items():
        asked = list(find_benchmark(name).read(where))
        assert len(asked) == SIZES.test * (3 if name == "pope" else 1)
        for question in asked:
            assert question.images[0].open().size == (48, 48) and question.answers


def test_prompts_of_training_are_those_of_the_benchmarks(made: Path) -> None:
    from ablab.tasks.vision_language.benchmarks.catalogue import find_benchmark
    from ablab.tasks.vision_language.benchmarks.protocol import Files

    root = made / "benchmarks"
    first = {row["conversations"][0]["value"].split("\n")[-1] for row in rows(made, "instruct")}
    where = Files(questions=root / "gqa/testdev_balanced_questions.json", images=root / "gqa/images")
    assert {question.prompt.split("\n")[-1] for question in find_benchmark("gqa").read(where)} <= first
    letters = {q.prompt.split("\n")[-1] for q in find_benchmark("scienceqa").read(Files(questions=root / "scienceqa"))}
    assert letters <= first


def test_every_category_is_of_a_subgroup_that_the_emoji_have(things: Things) -> None:
    assert len(things.categories) == len(set(CATEGORIES.values()))
    for split in ("train", "val", "test"):
        assert all(thing.kind in KINDS.values() for thing in things.of(split))


def test_korean_rows_are_as_many_as_asked(things: Things) -> None:
    found = list(Rows(things, "train", seed=1, korean=0.4).conversations(400, share=False))
    share = sum(row.content["language"] == "ko" for row in found) / len(found)
    # Choices are always in English.
    assert 0.25 < share < 0.45
