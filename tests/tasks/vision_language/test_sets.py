"""Prepared sets: damaged rows are named and counted, rows are read on their own, mixtures hold what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ablab.contract.failure import ConfigError, DataError
from ablab.data.images import ImageSource
from ablab.tasks.vision_language.benchmarks.protocol import Picture, Question
from ablab.tasks.vision_language.overlap import Seen, overlaps, plain
from ablab.tasks.vision_language.sets import Mixture, RowSet, open_sets, write_set


def rows(count: int, **change: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": str(i),
            "image": f"{i % 3}.png",
            "conversations": [
                {"from": "human", "value": f"<image>\nQuestion {i}?"},
                {"from": "gpt", "value": f"answer {i}"},
            ],
        }
        | change
        for i in range(count)
    ]


@pytest.fixture
def images(tmp_path: Path) -> ImageSource:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (4, 4), (i, i, i)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    return ImageSource(folder)


def write(tmp_path: Path, found: list[Any], images: ImageSource | None, name: str = "set", **options: Any) -> RowSet:
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(found), encoding="utf-8")
    folder = tmp_path / "artifacts" / "sets" / name
    write_set(folder, [file], images=images, place=None if images is None else "images", **options)
    return RowSet(folder, artifacts=tmp_path / "artifacts", study_folder=str(tmp_path))


def test_any_row_is_read_on_its_own(tmp_path: Path, images: ImageSource) -> None:
    given = rows(20)
    made = write(tmp_path, given, images)
    assert len(made) == 20 and made.images.tolist() == [1] * 20
    for row in (19, 0, 7):
        assert made.raw(row) == given[row]
        assert made.conversation(row).turns[1].text == f"answer {row}"
        assert made.source.open(made.conversation(row).images[0]).size == (4, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "nowhere.png"}, "the image 'nowhere.png' is not in"),
        ({"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": ""}]}, "answer is empty"),
        (
            {"conversations": [{"from": "human", "value": "<image>"}, {"from": "bot", "value": "a"}]},
            "unknown role 'bot'",
        ),
    ],
)
def test_a_damaged_row_is_named_and_left_out_only_under_the_limit(
    tmp_path: Path, images: ImageSource, change: dict[str, Any], said: str
) -> None:
    given = rows(6)
    given[3] |= change
    with pytest.raises(DataError, match=r"set\.json row 4: .*") as caught:
        write(tmp_path, given, images)
    assert said in str(caught.value) and "data.max_skipped" in str(caught.value)
    made = write(tmp_path, given, images, "other", max_skipped=1)
    assert len(made) == 5 and made.skipped == 1
    (told,) = (tmp_path / "artifacts/sets/other/skipped.jsonl").read_text().splitlines()
    assert json.loads(told)["row"] == 4 and said in json.loads(told)["reason"]
    given[5] |= change
    with pytest.raises(DataError, match=r"row 6.*1 rows were left out before it; data\.max_skipped is 1"):
        write(tmp_path, given, images, "third", max_skipped=1)


def test_broken_pictures_show_when_they_are_opened(tmp_path: Path, images: ImageSource) -> None:
    given = rows(2)
    given[1]["image"] = "broken.png"
    assert len(write(tmp_path, given, images)) == 2
    with pytest.raises(DataError, match=r"row 2: .*broken\.png: the image cannot be decoded"):
        write(tmp_path, given, images, "opened", open_images=True)
    with pytest.raises(DataError, match="the set has no `images`"):
        write(tmp_path, given, None, "blind")


def test_shares_say_how_often_rows_are_seen(tmp_path: Path, images: ImageSource) -> None:
    for name, count in (("a", 10), ("b", 8)):
        write(tmp_path, rows(count), images, name)
    sets = open_sets(tmp_path / "artifacts", ["a", "b"], study_folder=str(tmp_path))
    mixture = Mixture(sets, {"a": 2, "b": 0.5})
    seen = [(rows.name, row) for rows, row in map(mixture.place, range(len(mixture)))]
    assert all(seen.count(("a", row)) == 2 for row in range(10))
    assert sum(name == "b" for name, _ in seen) == 4 == len({row for name, row in seen if name == "b"})


def test_held_out_rows_never_train(tmp_path: Path, images: ImageSource) -> None:
    write(tmp_path, rows(30), images, "a")
    sets = open_sets(tmp_path / "artifacts", ["a"], study_folder=str(tmp_path))
    train, val = (Mixture(sets, {"a": 2}, held_out=6, part=part) for part in ("train", "val"))
    assert not set(train.rows.tolist()) & set(val.rows.tolist())
    assert len(set(val.rows.tolist())) == 6 and len(train) + len(val) == 60
    assert np.array_equal(val.rows, Mixture(sets, {"a": 2}, held_out=6, part="val").rows)
    with pytest.raises(ConfigError, match="leaves nothing of 30 rows"):
        Mixture(sets, {"a": 1}, held_out=30)


def test_pictures_and_questions_of_a_benchmark_in_training(tmp_path: Path, images: ImageSource) -> None:
    made = write(tmp_path, rows(6), images)
    Image.new("RGB", (4, 4), (77, 0, 0)).save(tmp_path / "images" / "new.png")
    seen = Seen()
    asked = [
        Question(
            id="1", prompt="Question 1?\nShort.", question="question 1", images=(Picture(name="1.png", source=images),)
        ),
        Question(id="2", prompt="Other?", question="Other?", images=(Picture(name="1.png", source=images),)),
        Question(id="3", prompt="Question 3?", images=(Picture(name="new.png", source=images),)),
    ]
    seen.add("gqa", asked)
    assert overlaps(seen, [made]) == {"overlap.images.gqa": 1, "overlap.questions.gqa": 1}
    fresh = Seen()
    fresh.add("gqa", asked[2:])
    assert overlaps(fresh, [made]) == {}
    assert plain("<image>\nWhat is it?\nAnswer shortly.") == "what is it"
