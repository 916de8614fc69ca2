from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablab.contract.failure import DataError
from ablab.data.readers.hub import HubSet

datasets = pytest.importorskip("datasets")


def jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def stories(tmp_path: Path) -> HubSet:
    folder = tmp_path / "stories"
    folder.mkdir()
    jsonl(folder / "train.jsonl", [{"text": f"story {i}", "id": i} for i in range(2100)])
    jsonl(folder / "validation.jsonl", [{"text": f"check {i}", "id": i} for i in range(3)])
    return HubSet(name=str(folder), cache=str(tmp_path / "cache"))


@pytest.mark.parametrize("streaming", [False, True])
def test_splits_are_read_row_by_row(stories: HubSet, streaming: bool) -> None:
    assert set(stories.splits()) == {"train", "validation"}
    found = list(stories.read("train", streaming=streaming))
    assert [d.text for d in found] == [f"story {i}" for i in range(2100)]
    assert found[-1][1:] == (f"{stories.name}/train", 2100)


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_is_read_the_same_way(tmp_path: Path, streaming: bool) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(pa.table({"text": ["a", None, "c"]}), folder / "train.parquet")
    hub = HubSet(name=str(folder), cache=str(tmp_path / "cache"))
    with pytest.raises(DataError, match="train, row 2: the field 'text' is null"):
        list(hub.read("train", streaming=streaming))
    with pytest.raises(DataError, match="no column 'story'; it has 'text'"):
        list(hub.read("train", field="story", streaming=streaming))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_corrupt_file_is_a_data_error(tmp_path: Path, streaming: bool) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "good"}\n{"text": "cu\n')
    hub = HubSet(name=str(folder), cache=str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"set/train: .*row 1"):
        list(hub.read("train", streaming=streaming))


def test_what_is_not_there_is_explained(stories: HubSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing-here"):
        HubSet(name=str(tmp_path / "nothing-here")).splits()
    with pytest.raises(DataError, match="BuilderConfig 'other' not found"):
        list(HubSet(name=stories.name, subset="other", cache=stories.cache).read("train"))


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"the hub cannot be reached .* run the prepare stage once") as error:
        HubSet(name="roneneldan/TinyStories").splits()
    assert error.value.kind == "data"


def snapshot(cache: Path, shards: int) -> Path:
    """A data set of two shards as `ablab fetch` leaves it in the hub's cache, some of them not there yet."""
    folder = cache / "datasets--one--set"
    made = folder / "snapshots" / ("d" * 40) / "stories_data"
    made.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("d" * 40)
    files = "configs:\n- config_name: stories_data\n  data_files:\n  - split: train\n    path: stories_data/train-*\n"
    (made.parent / "README.md").write_text(f"---\n{files}---\n")
    for shard in range(shards):
        table = pa.table({"text": [f"story {shard}{row}" for row in range(2)]})
        pq.write_table(table, made / f"train-{shard:05}-of-00002.parquet")
    return made.parent


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("revision", [None, "d" * 40])
def test_what_was_fetched_is_read_where_the_hub_may_not_be_asked(offline: Path, revision: str | None) -> None:
    snapshot(offline / "hub", 2)
    hub = HubSet(name="one/set", subset="stories_data", revision=revision, cache=str(offline / "arrow"))
    assert hub.splits() == ("train",)
    assert [d.text for d in hub.read("train")] == ["story 00", "story 01", "story 10", "story 11"]
    assert [d.file for d in hub.read("train", streaming=True)] == ["one/set/train"] * 4


def test_a_copy_with_missing_files_is_not_read_as_if_it_were_whole(offline: Path) -> None:
    snapshot(offline / "hub", 1)
    with pytest.raises(DataError, match=r"holds 1 of 2 files of stories_data/train.parquet; run `ablab fetch`"):
        HubSet(name="one/set", subset="stories_data").splits()


def test_another_revision_or_a_card_alone_is_no_copy(offline: Path) -> None:
    folder = snapshot(offline / "hub", 2)
    with pytest.raises(DataError, match="the hub cannot be reached"):
        HubSet(name="one/set", subset="stories_data", revision="e" * 40).splits()
    for file in (folder / "stories_data").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="the hub cannot be reached"):
        HubSet(name="one/set", subset="stories_data").splits()
