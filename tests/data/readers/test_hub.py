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
