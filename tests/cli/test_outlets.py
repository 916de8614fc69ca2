"""`ablab ask` and `ablab export`: which run is meant, what a worker is asked; its work is tested with the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ablab.cli import outlets
from ablab.cli.main import app
from ablab.contract.failure import ConfigError
from ablab.contract.order import Input, Order
from ablab.contract.result import Result
from ablab.store.files import write_json
from ablab.store.layout import RunFolder, Store


def run(
    store: Store, stage: str, kind: str, *, inputs: tuple[RunFolder, ...] = (), task="vision-language", **more: Any
):
    folder = store.run(f"{stage}-{stage}key").create()
    given = tuple(
        Input(reference=one.read_order().stage, stage=one.read_order().stage, kind=one.read_order().kind,
              key=one.read_order().key, path=str(one.path)) for one in inputs
    )  # fmt: skip
    folder.write_order(
        Order(key=f"{stage}key", stage=stage, kind=kind, task=task, study="s", profile="full", experiment="E01",
              seed=42, folder=str(folder.path), inputs=given, **more)
    )  # fmt: skip
    write_json(folder.result_path, Result(key=f"{stage}key").model_dump(mode="json"))
    if kind in {"train", "language"}:
        (folder.checkpoints / "step-00000002").mkdir(parents=True)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "lab")
    prepare = run(store, "prepare", "prepare")
    language = run(store, "language", "language", inputs=(prepare,))
    pretrain = run(store, "pretrain", "train", inputs=(prepare, language), parameters={"template": "plain"})
    finetune = run(store, "finetune", "train", inputs=(prepare, language, pretrain), parameters={"template": "phi"})
    run(store, "evaluate", "evaluate", inputs=(prepare, finetune))
    run(store, "words", "train", task="language-modeling")
    (tmp_path / "cat.png").write_bytes(b"not looked at here")
    return store


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Input, dict[str, Any]]]:
    calls = []

    def compute(kind, folder, given, parameters, *, devices):
        calls.append((kind, folder.name, given, parameters))
        return {"answer": "a cat", "export.format": "own", "export.why": ["its head"], "export.load": ["import x"]}

    monkeypatch.setattr(outlets, "_compute", compute)
    return calls


def call(store: Store, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--store", str(store.root)])


@pytest.mark.parametrize("text", ["E01", "evaluate", "finetune", "E01/42/finetune"])
def test_a_question_goes_to_the_weights_behind_what_is_named(store, asked, tmp_path, text):
    """An evaluation has no weights; those it was made from are meant, not the phase or backbone behind these."""
    if text == "E01":
        import os

        os.utime(store.run("evaluate-evaluatekey").path, (4e9, 4e9))
    done = call(store, "ask", text, str(tmp_path / "cat.png"), "what?", "--beams", "3", "--best")
    assert done.exit_code == 0 and done.output == "a cat\n", done.output
    ((kind, name, given, parameters),) = asked
    assert (kind, name, given.checkpoint) == ("ask", "finetune-finetunekey", "best")
    assert parameters["template"] == "phi" and parameters["decoding"] == {"max_new_tokens": 128, "beams": 3}
    assert parameters["images"] == [str(tmp_path / "cat.png")]


def test_a_model_of_captions_alone_is_asked_by_its_language_models_template(store, asked, tmp_path):
    call(store, "ask", "pretrain", str(tmp_path / "cat.png"), "what?")
    assert asked[0][3]["template"] == "auto"


def test_export_prints_the_format_the_reasons_and_how_to_load(store, asked, tmp_path):
    done = call(store, "export", "finetune", "--to", str(tmp_path / "out"))
    assert done.exit_code == 0
    assert "own format" in done.output and "not transformers' own class: its head" in done.output
    assert "  import x" in done.output and asked[0][3] == {"folder": str(tmp_path / "out")}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    refused = call(store, "export", "finetune", "--to", str(tmp_path / "full"))
    assert isinstance(refused.exception, ConfigError) and "is not empty" in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "prepare"), "prepare-preparekey has no weights"),
        (("export", "language"), "is of stage kind language; `ablab export` takes a run of train"),
        (("export", "words"), "`ablab export` is not offered by the task language-modeling"),
        (("export", "finetun2"), "no run in .* matches 'finetun2'; nearest: finetune-finetunekey"),
        (("ask", "finetune", "nowhere.png", "q"), "nowhere.png: no such image file"),
    ],
)
def test_mistakes_say_what_is_wrong(store, asked, arguments, message):
    done = call(store, *arguments)
    assert isinstance(done.exception, ConfigError)
    with pytest.raises(ConfigError, match=message):
        raise done.exception
    assert not asked


def test_a_store_that_was_copied_is_read_where_it_is_now(store, asked, tmp_path):
    import shutil

    shutil.move(store.root, tmp_path / "elsewhere")
    done = call(Store(tmp_path / "elsewhere"), "export", "evaluate", "--to", str(tmp_path / "out"))
    assert done.exit_code == 0, done.exception
    assert asked[0][2].path == str(tmp_path / "elsewhere" / "runs" / "finetune-finetunekey")
