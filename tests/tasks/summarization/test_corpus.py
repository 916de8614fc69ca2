"""The prepare stage: sources, division, cleaning, overlap, topics set apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.failure import ConfigError, DataError
from ablab.data.dialogues import PreparedDialogues
from ablab.tasks.summarization.corpus import FOLDER, prepare, read_splits
from ablab.tasks.summarization.sections import Data


def write(path: Path, rows: list[tuple[str, str]], *, topic: str = "t") -> str:
    lines = [
        json.dumps({"fname": f"{path.stem}-{i}", "dialogue": text, "summary": said, "topic": topic}, ensure_ascii=False)
        for i, (text, said) in enumerate(rows)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path.name


def rows(count: int, text: str = "turn") -> list[tuple[str, str]]:
    return [(f"A: {text} {i}\nB: yes", f"summary {i}") for i in range(count)]


def read(data: Data, folder: Path) -> dict[str, Any]:
    return read_splits(data, revisions={}, folder=str(folder))


def test_a_split_without_files_is_divided_off_train(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.jsonl", rows(200)), write(tmp_path / "test.jsonl", rows(7, "other"))
    data = Data(source="files", files=(train,), test_files=(test,), splits={"validation": 0.2, "test": 0.3})
    splits = read(data, tmp_path)
    assert len(splits["test"]) == 7, "a split with files takes nothing from train"
    assert 20 < len(splits["val"]) < 60 and len(splits["train"]) + len(splits["val"]) == 200
    whole = read(data.model_copy(update={"splits": data.splits.model_copy(update={"validation": 0.0})}), tmp_path)
    assert set(whole) == {"train", "test"}


def test_a_hub_set_is_read_by_its_own_splits(tmp_path: Path) -> None:
    for name, count in (("train", 6), ("validation", 3), ("test", 2)):
        write(tmp_path / f"{name}.jsonl", rows(count, name))
    splits = read(Data(source=str(tmp_path)), tmp_path)
    assert {name: len(found) for name, found in splits.items()} == {"train": 6, "val": 3, "test": 2}
    assert splits["val"][0].dialogue == "A: validation 0\nB: yes" and splits["val"][0].id == "validation-0"


def test_what_is_written_is_clean_counted_and_without_overlap(tmp_path: Path, contexts: Callable[..., Any]) -> None:
    shared = [("A: 안녕ㅋㅋ!!!", "인사합니다.")]
    train, val = write(tmp_path / "a.jsonl", rows(5) + shared), write(tmp_path / "b.jsonl", shared)
    found = {}
    for overlap in ("keep", "drop"):
        data = Data(
            source="files", files=(train,), validation_files=(val,), splits={"test": 0.0}, overlap=overlap,
            cleaning=("whitespace", "noise"),
        )  # fmt: skip
        context = contexts(tmp_path / overlap, kind="prepare", study_folder=str(tmp_path))
        outcome = prepare(data, context)
        found[overlap] = (
            outcome.facts["overlaps"],
            outcome.facts["overlaps.dropped"],
            outcome.facts["dialogues.train"],
        )
        prepared = PreparedDialogues(context.artifacts / FOLDER)
        assert prepared.rows("val")[0].dialogue == "A: 안녕!" and prepared.rows("val")[0].summaries == ("인사합니다.",)
        assert prepare(data, context) == outcome, "a second attempt finds it done"
        (evaluation,) = outcome.evaluations
        assert [row[0] for row in evaluation.tables[0].rows] == ["train", "val"]
    assert found == {"keep": ({"train.val": 1}, 0, 6), "drop": ({}, 1, 5)}


def test_topics_set_apart_are_in_no_other_split() -> None:
    data = Data(source="generated", size=60, pretraining_topics=("식당*", "job*"))
    splits = read_splits(data, revisions={}, folder=None)
    apart = {row.topic for row in splits["pretraining"]}
    assert apart and all(topic.startswith(("식당", "job")) for topic in apart)
    for name in ("train", "val", "test"):
        assert splits[name] and not apart & {row.topic for row in splits[name]}
    with pytest.raises(ConfigError, match="match no topic; topics: "):
        read_splits(data.model_copy(update={"pretraining_topics": ("nothing",)}), revisions={}, folder=None)


def test_test_dialogues_share_no_turn_with_training() -> None:
    splits = read_splits(Data(source="generated", size=200), revisions={}, folder=None)
    train = {text for row in splits["train"] for text in row.summaries}
    assert not train & {text for row in splits["test"] for text in row.summaries}
    assert all(len(row.summaries) == 3 for found in splits.values() for row in found)


def test_limits_and_rows_without_summary(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", rows(9))
    (tmp_path / "hand-in.jsonl").write_text('{"fname": "t", "dialogue": "A: x"}\n')
    data = Data(source="files", files=(train,), submission_files=("hand-in.jsonl",), max_dialogues=4)
    splits = read(
        data.model_copy(update={"splits": data.splits.model_copy(update={"validation": 0, "test": 0})}), tmp_path
    )
    assert len(splits["train"]) == 4 and splits["submission"][0].summaries == ()
    with pytest.raises(DataError, match="no such file"):
        read(Data(source="files", files=("none.jsonl",)), tmp_path)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"source": "generatd"}, "unknown source 'generatd'"),
        ({"source": "files"}, "give `files`"),
        ({"source": "generated"}, "size belongs to source: generated, which needs it"),
        ({"source": "a/b", "size": 9}, "size belongs"),
        ({"source": "generated", "size": 9, "subset": "x"}, "subset belongs to a hub data set"),
        ({"source": "generated", "size": 9, "tokenizer": {"name": "bpe"}}, "vocabulary belongs to a trained tokenizer"),
        ({"source": "generated", "size": 9, "splits": {"validation": 0.5, "test": 0.5}}, "leave nothing to train on"),
    ],
)
def test_sections_that_cannot_be_are_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Data(**values)
