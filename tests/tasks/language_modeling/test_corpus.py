from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.failure import ConfigError, StopRequested
from ablab.contract.order import Input, Order
from ablab.store.files import write_json
from ablab.tasks.language_modeling import corpus
from ablab.tasks.language_modeling.config import Prepare
from ablab.tasks.language_modeling.corpus import open_corpus, prepare
from ablab.tasks.language_modeling.sections import Data


def test_the_outcome_counts_what_the_text_holds(data: Data, text_file: Path, context: Any) -> None:
    outcome = prepare(data, Prepare(workers=1), context)
    text = text_file.read_text(encoding="utf-8")
    total = {name: sum(outcome.facts[f"{name}.{split}"] for split in ("train", "val", "test")) for name in
             ("documents", "words", "bytes")}  # fmt: skip
    assert total == {
        "documents": len(text.splitlines()),
        "words": len(text.split()),
        "bytes": sum(len(line.encode()) for line in text.splitlines()),
    }
    assert outcome.facts["vocabulary"] <= 300
    (table,) = outcome.evaluations[0].tables
    assert [row[0] for row in table.rows] == ["train", "val", "test"]
    assert (context.folder / outcome.artifacts["corpus"] / "manifest.json").is_file()


def test_a_second_attempt_takes_the_finished_corpus(data: Data, context: Any) -> None:
    first = prepare(data, Prepare(workers=1), context)
    marker = context.artifacts / corpus.FOLDER / "manifest.json"
    before = marker.stat().st_mtime_ns
    assert prepare(data, Prepare(workers=1), context) == first
    assert marker.stat().st_mtime_ns == before


def test_a_stop_leaves_nothing_half_written(data: Data, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*_: Any, progress: Callable[[float, float, str], None], **__: Any) -> None:
        progress(1, 2, "bytes")

    monkeypatch.setattr(corpus, "prepare_corpus", stops)
    context.stop = True
    with pytest.raises(StopRequested):
        prepare(data, Prepare(workers=1), context)
    assert context.done == [(1, 2)]


def test_an_evaluation_finds_the_corpus_behind_its_training(prepared: Input, tmp_path: Path) -> None:
    folder = tmp_path / "train-1"
    order = Order(
        key="t", stage="train", kind="train", task="language-modeling", study="s", profile="full", experiment="A",
        folder=str(folder), inputs=(prepared,),
    )  # fmt: skip
    write_json(folder / "order.json", order)
    train = Input(reference="train@best", stage="train", kind="train", key="t", path=str(folder))
    assert open_corpus([train]).folder == open_corpus([prepared]).folder


def test_without_data_the_needs_are_named() -> None:
    with pytest.raises(ConfigError, match="needs"):
        open_corpus([])


@pytest.mark.parametrize("revision", ["0" * 40, None])
def test_a_hub_set_is_read_at_the_locked_revision(revision: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(corpus, "hub_source", lambda name, **given: seen.update(name=name, **given))
    locked = {"dataset:Salesforce/wikitext": revision} if revision else {}
    corpus.open_source(Data(source="wikitext-103"), revisions=locked, folder=None)
    assert seen["name"] == "Salesforce/wikitext"
    assert (seen["subset"], seen["revision"]) == ("wikitext-103-raw-v1", revision)
