from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablab import bundled
from ablab.contract.failure import ConfigError, DataError
from ablab.data.readers.opening import read_lines
from ablab.data.sources import bundled_source, files_source, hub_source, reader_of


def test_a_document_of_austen_is_a_chapter() -> None:
    source = bundled_source("austen")
    documents = list(source.readers["train"]())
    files = sorted({document.file for document in documents})
    assert [Path(file).name for file in files] == sorted(
        name for name in bundled.describe("austen").files if name != "LICENCE.txt"
    )
    per_novel = {Path(file).name.split(".")[0]: sum(d.file == file for d in documents) for file in files}
    # Chapters of the novels as published; Emma's and Mansfield Park's first have no heading in these texts, Northanger
    # Abbey has the author's note before its first.
    assert per_novel == {
        "emma": 55,
        "mansfield-park": 48,
        "northanger-abbey": 32,
        "persuasion": 24,
        "pride-and-prejudice": 61,
        "sense-and-sensibility": 50,
    }
    for file in files:
        words = "".join(line for _, line in read_lines(file)).split()
        assert [word for d in documents if d.file == file for word in d.text.split()] == words


def test_a_document_of_wordnet_is_a_synset() -> None:
    documents = list(bundled_source("wordnet").readers["train"]())
    assert len(documents) == 117_659
    assert documents[0].text.startswith("entity (noun): that which is perceived")
    assert all("): " in document.text for document in documents)


def test_files_of_every_format_are_read_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("from text")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": "from jsonl"}).encode()))
    pq.write_table(pa.table({"text": ["from parquet"]}), tmp_path / "c.parquet")
    (tmp_path / "val.txt").write_text("one\n\ntwo")
    source = files_source(
        ["b.txt", "a.jsonl.gz", "c.parquet"], folder=tmp_path, validation_files=["val.txt"], documents="paragraphs"
    )
    assert [d.text for d in source.readers["train"]()] == ["from text", "from jsonl", "from parquet"]
    assert [d.text for d in source.readers["train"]()] == ["from text", "from jsonl", "from parquet"]
    assert [d.text for d in source.readers["val"]()] == ["one", "two"]
    assert set(source.readers) == {"train", "val"}


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "there.txt").write_text("x")
    with pytest.raises(DataError, match=r"no such file: .*a\.txt, .*b\.jsonl;"):
        files_source(["there.txt", "a.txt"], folder=tmp_path, test_files=["b.jsonl"])


def test_a_file_in_two_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="named twice"):
        files_source(["a.txt"], folder=tmp_path, validation_files=["a.txt"])


@pytest.mark.parametrize("name", ["a.csv", "a.zip", "a.txt.zst", "a.tar.gz", "folder"])
def test_formats_that_are_not_read_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="not a text, JSONL or parquet file"):
        reader_of(tmp_path / name)


def test_hub_splits_get_our_names(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text(json.dumps({"text": split}) + "\n")
    cache = str(tmp_path / "cache")
    source = hub_source(str(folder), cache=cache)
    assert {split: [d.text for d in read()] for split, read in source.readers.items()} == {
        "train": ["train"],
        "val": ["validation"],
        "test": ["test"],
    }
    assert set(hub_source(str(folder), official=False, cache=cache).readers) == {"train"}


def test_wikitext_of_the_hub_is_joined_into_articles(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "wikitext"
    folder.mkdir()
    lines = ["", " = One = \n", "", " text \n", "", " = = Part = = \n", " more \n", "", " = Two = \n", "", " end \n"]
    pq.write_table(pa.table({"text": lines}), folder / "train.parquet")
    source = hub_source(str(folder), streaming=True)
    assert [d.text.split("\n")[0].strip() for d in source.readers["train"]()] == ["= One =", "= Two ="]


def test_an_unknown_bundled_corpus_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="no bundled corpus 'gpt2'; there are austen, wordnet"):
        bundled_source("gpt2")
