from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.contract.failure import AblabError, ConfigError, DataError, StopRequested
from ablab.data.corpora import Limits, Prepared, prepare_corpus
from ablab.data.division import Division
from ablab.data.sources import Source, files_source
from ablab.store.manifest import check_manifest

TENTHS = Division(validation=0.1, test=0.1)


def jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def stories(folder: Path, count: int = 200, name: str = "stories.jsonl") -> Source:
    texts = [f"Once upon a time number {i} met naïve {'word ' * (i % 7)}<|endoftext|> end." for i in range(count)]
    return files_source([jsonl(folder / name, texts)])


def documents_of(prepared: Prepared, split: str) -> list[str]:
    """Return the texts of a split, decoded from its tokens alone."""
    tokens = prepared.tokens(split)
    ids = tokens.read(0, len(tokens)).astype(np.int64)
    ends = np.flatnonzero(ids == prepared.end_of_text)
    tokenizer = prepared.tokenizer()
    return [tokenizer.decode(part[part != prepared.end_of_text]) for part in np.split(ids, ends + 1)[:-1]]


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(("tokenizer", "vocabulary"), [("gpt2", None), ("bpe", 300), ("bytes", None)])
@pytest.mark.parametrize("shard_tokens", [100_000_000, 777])
def test_a_prepared_corpus_is_the_text(
    tmp_path: Path, tokenizer: str, vocabulary: int | None, shard_tokens: int
) -> None:
    source = stories(tmp_path)
    prepared = prepare_corpus(
        source,
        tmp_path / "out",
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        division=TENTHS,
        shard_tokens=shard_tokens,
        workers=1,
    )
    texts = [document.text for document in source.readers["train"]()]
    assert prepared.splits == ("train", "val", "test")
    found = {split: documents_of(prepared, split) for split in prepared.splits}
    assert sorted(text for part in found.values() for text in part) == sorted(texts)
    # Within a split, documents keep the order they were read in.
    places = {text: i for i, text in enumerate(texts)}
    for part in found.values():
        assert [places[text] for text in part] == sorted(places[text] for text in part)
    table = prepared.tokenizer().token_bytes()
    for split, part in found.items():
        counts = prepared.counts(split)
        tokens = prepared.tokens(split)
        assert counts.documents == len(part)
        assert counts.tokens == len(tokens)
        assert counts.words == sum(len(text.split()) for text in part)
        assert counts.bytes == sum(len(text.encode()) for text in part)
        assert table[tokens.read(0, len(tokens))].sum() == counts.bytes
    assert prepared.dtype == np.uint16
    assert check_manifest(tmp_path / "out") == []


words = st.lists(st.sampled_from(["a", "B!", "naïve", "\n", "한국", "<|endoftext|>", "  "]), min_size=1, max_size=6)


@settings(max_examples=25)
@given(texts=st.lists(words.map(" ".join), max_size=40), shares=st.tuples(st.floats(0.1, 0.4), st.floats(0.1, 0.4)))
def test_splits_are_disjoint_and_cover_everything(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], shares: tuple[float, float]
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    source = files_source([jsonl(folder / "a.jsonl", texts)])
    division = Division(validation=shares[0], test=shares[1])
    try:
        prepared = prepare_corpus(source, folder / "out", tokenizer="bytes", division=division, workers=1)
    except DataError as error:
        assert "none" in str(error)
        assert sorted(path.name for path in folder.iterdir()) == ["a.jsonl"]
        return
    parts = [documents_of(prepared, split) for split in prepared.splits]
    assert sorted(text for part in parts for text in part) == sorted(text for text in texts if text.strip())
    for i, part in enumerate(parts):
        for other in parts[i + 1 :]:
            assert not set(part) & set(other)


def test_processes_and_folders_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stories(tmp_path)
    prepare_corpus(source, tmp_path / "one", division=TENTHS, tokenizer="bpe", vocabulary=300, workers=1)
    monkeypatch.setattr("ablab.data.encoding._BATCH", 3000)
    monkeypatch.setattr("ablab.data.encoding._ALONE", 0)
    prepare_corpus(source, tmp_path / "two", division=TENTHS, tokenizer="bpe", vocabulary=300, workers=2)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_a_trained_tokenizer_sees_the_train_split_only(tmp_path: Path) -> None:
    texts = [f"plain text number {i}" for i in range(300)]
    held_out = [text for text in texts if TENTHS.split(text.encode()) != "train"]
    marked = [f"{text} zqzqzq" if text in held_out else text for text in texts]
    # The mark moves some documents elsewhere; keep those that stay held out.
    marked = [text for text in marked if "zqzqzq" not in text or TENTHS.split(text.encode()) != "train"]
    assert sum("zqzqzq" in text for text in marked) > 5
    source = files_source([jsonl(tmp_path / "a.jsonl", marked)])
    prepared = prepare_corpus(source, tmp_path / "out", tokenizer="bpe", vocabulary=400, division=TENTHS, workers=1)
    assert len(prepared.tokenizer().encode("zqzqzq")) == 6
    trained_on = prepared.manifest["tokenizer"]["trained_on"]
    assert trained_on["documents"] == prepared.counts("train").documents
    assert trained_on["bytes"] == prepared.counts("train").bytes


def test_own_splits_are_taken_and_missing_ones_divided_off(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", [f"train {i}" for i in range(100)])
    held = jsonl(tmp_path / "val.jsonl", [f"held {i}" for i in range(7)])
    source = files_source([train], validation_files=[held])
    prepared = prepare_corpus(source, tmp_path / "out", tokenizer="bytes", division=TENTHS, workers=1)
    assert documents_of(prepared, "val") == [f"held {i}" for i in range(7)]
    assert prepared.counts("test").documents > 0
    assert prepared.counts("train").documents + prepared.counts("test").documents == 100
    assert prepared.manifest["division"] == {"validation": 0.0, "test": 0.1, "seed": 2357, "own_splits": ["val"]}


def test_limits_stop_at_the_document_that_reaches_them(tmp_path: Path) -> None:
    source = stories(tmp_path, 400)
    whole = prepare_corpus(source, tmp_path / "all", tokenizer="bytes", division=TENTHS, workers=1)
    capped = prepare_corpus(
        source, tmp_path / "capped", tokenizer="bytes", division=TENTHS, workers=1, limits=Limits(tokens=5000)
    )
    train = documents_of(capped, "train")
    assert train == documents_of(whole, "train")[: len(train)]
    last = len(train[-1].encode()) + 1
    assert capped.counts("train").tokens - last < 5000 <= capped.counts("train").tokens
    few = prepare_corpus(
        source, tmp_path / "few", tokenizer="bytes", division=TENTHS, workers=1, limits=Limits(documents=50)
    )
    assert sum(few.counts(split).documents for split in few.splits) == 50


def test_an_empty_split_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one document only")
    with pytest.raises(DataError, match=r"of 1 documents none fell to the validation split .*data\.documents"):
        prepare_corpus(files_source([tmp_path / "a.txt"]), tmp_path / "out", tokenizer="bytes", workers=1)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="of 0 documents none is left to train on"):
        prepare_corpus(files_source([tmp_path / "empty.txt"]), tmp_path / "out", tokenizer="bytes", workers=1)
    assert not (tmp_path / "out").exists()


def test_a_corrupt_row_leaves_nothing_behind(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [f"text {i}" for i in range(50)])
    path.write_text(path.read_text() + '{"text": 3}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 51"):
        prepare_corpus(files_source([path]), tmp_path / "out", tokenizer="bytes", workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_progress_can_stop_the_work(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [f"{i} " + "text " * 2000 for i in range(1000)])
    seen: list[tuple[float, float, str]] = []

    def progress(done: float, total: float, unit: str) -> None:
        seen.append((done, total, unit))
        if len(seen) == 3:
            raise StopRequested("asked to stop")

    with pytest.raises(StopRequested):
        prepare_corpus(files_source([path]), tmp_path / "out", tokenizer="bytes", workers=1, progress=progress)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert all(0 < done <= total and unit == "bytes" for done, total, unit in seen)


def test_a_killed_preparation_leaves_nothing_half_used(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [f"{i} " + "text " * 2000 for i in range(1000)])
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from ablab.data.corpora import prepare_corpus\n"
        "from ablab.data.sources import files_source\n"
        "def progress(done, total, unit):\n"
        "    print(done, flush=True); time.sleep(60)\n"
        "prepare_corpus(files_source(['a.jsonl']), 'out', tokenizer='bytes', workers=1, progress=progress)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    left = [path.name for path in tmp_path.iterdir() if path.name != "a.jsonl"]
    assert len(left) == 1 and left[0].startswith(".tmp-out-")
    with pytest.raises(AblabError):
        Prepared(tmp_path / "out")
    prepared = prepare_corpus(files_source([tmp_path / "a.jsonl"]), tmp_path / "out", tokenizer="bytes", workers=1)
    assert sum(prepared.counts(split).documents for split in prepared.splits) == 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out"]


def test_damage_after_the_fact_is_noticed(tmp_path: Path) -> None:
    prepared = prepare_corpus(stories(tmp_path), tmp_path / "out", tokenizer="bytes", division=TENTHS, workers=1)
    shard = tmp_path / "out" / "train-00000.bin"
    os.truncate(shard, shard.stat().st_size - 2)
    with pytest.raises(DataError, match="shards hold"):
        prepared.tokens("train")
    with pytest.raises(DataError, match="no split 'dev'; it has train, val, test"):
        prepared.counts("dev")


def test_a_tokenizer_without_its_size_is_refused(tmp_path: Path) -> None:
    for options in ({"tokenizer": "bpe"}, {"tokenizer": "word"}):
        arguments: dict[str, Any] = options
        with pytest.raises(ConfigError, match="expected gpt2, bytes, or bpe with a size"):
            prepare_corpus(stories(tmp_path), tmp_path / "out", **arguments)
