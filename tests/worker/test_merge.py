"""The merge stage in a study, from trained checkpoints to the evaluation of what became of them; and `ablab merge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ablab.lab import load
from ablab.store.layout import RunFolder

STUDY = """
name: soup
question: Does the mean of two models predict better than each?
task: language-modeling
seeds: [1]
compute: {threads: 1, rehearse: false}
defaults:
  data: {source: austen, tokenizer: {name: bytes}, max_documents: 12, splits: {validation: 0.2, test: 0.2}}
  model: {width: 16, layers: 1, heads: 2, feedforward: 32, context: 16, dropout: 0.0}
  pipeline:
    prepare: {}
    train: {steps: 4, batch: 4, optimizer: {learning_rate: 1e-2}, validation: {batches: 1}}
experiments:
  A: {}
  B: {pipeline: {train: {optimizer: {learning_rate: 2e-2}}}}
  frozen: {model: {attention: {query_key: frozen-orthogonal}, store_frozen: seed}}
  M:
    pipeline:
      train: null
      merge: {method: linear, models: [{model: A.train, weight: 3}, {model: B.train}], needs: [A.train, B.train]}
      evaluate: {needs: [prepare, merge], examples: 0, batch: 256}
"""


def run_study(folder: Path, text: str = STUDY) -> Any:
    path = folder / "study.yaml"
    path.write_text(text)
    lab = load(path, store=folder / "lab")
    lab.run(rewrite=None)
    return lab


def weights(lab: Any, experiment: str, stage: str) -> tuple[RunFolder, dict[str, torch.Tensor]]:
    run = lab.store.run(lab.plan().run_of(experiment, 1, stage).name)
    (file,) = (run.path / "checkpoints").glob("step-*/model.safetensors")
    return run, load_file(file)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_study(tmp_path_factory.mktemp("soup"))


def test_checkpoints_become_a_checkpoint_that_is_evaluated(lab: Any) -> None:
    _, a = weights(lab, "A", "train")
    _, b = weights(lab, "B", "train")
    run, merged = weights(lab, "M", "merge")
    assert merged.keys() == a.keys()
    for name, value in merged.items():
        torch.testing.assert_close(value, 0.75 * a[name] + 0.25 * b[name])
    evaluated = lab.store.run(lab.plan().run_of("M", 1, "evaluate").name).read_result()
    assert evaluated is not None and evaluated.metrics["test/perplexity"] > 1
    result = run.read_result()
    assert result is not None and result.facts["merge.tensors"] == len(merged)
    (evaluation,) = result.evaluations
    assert json.loads((run.path / evaluation).read_text())["tables"][0]["rows"][0][:2] == ["A.train", 3.0]


def test_a_name_that_leads_nowhere_is_told_by_line(tmp_path: Path) -> None:
    from ablab.contract.failure import AblabError

    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace("{model: B.train}", "{model: B.trian}"))
    with pytest.raises(AblabError, match=r"study\.yaml:\d+.*'B\.trian' is no stage this one needs"):
        load(path)


def test_tensors_left_out_of_a_checkpoint_need_the_task_s_sections(lab: Any, tmp_path: Path) -> None:
    from ablab.contract.failure import ConfigError
    from ablab.contract.order import Input, Order
    from ablab.worker.stages.merge import _located, parameters_of

    run = lab.store.run(lab.plan().run_of("frozen", 1, "train").name)
    own = run.read_order()
    given = Input(reference="frozen.train", stage="train", kind="train", key="k", path=str(run.path))
    models = [{"model": "frozen.train"}, {"model": "A.train"}]
    other = Input(
        reference="A.train", stage="train", kind="train", key="a", path=str(weights(lab, "A", "train")[0].path)
    )
    fields = {"stage": "merge", "kind": "merge", "task": "language-modeling", "study": "s", "profile": "full"}
    order = Order(
        **fields, key="m", experiment="M", folder=str(tmp_path), seed=1, inputs=(given, other, *own.inputs),
        parameters={"method": "linear", "models": models},
    )  # fmt: skip
    context: Any = type("Context", (), {"folder": tmp_path})()
    with pytest.raises(ConfigError, match="keeps only what it trained"), _located(parameters_of(order), order, context):
        pass
    whole = order.model_copy(update={"sections": own.sections})
    with _located(parameters_of(whole), whole, context) as found:
        tensors = load_file(found["frozen.train"] / "model.safetensors")
        assert tensors.keys() >= {
            name for name in load_file(next(run.path.glob("checkpoints/step-*/model.safetensors")))
        }
        assert len(tensors) > len(load_file(next(run.path.glob("checkpoints/step-*/model.safetensors"))))
    assert not list(tmp_path.glob(".tmp-*"))


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from ablab.cli.main import app
    from ablab.contract.failure import ConfigError, DataError

    torch.manual_seed(0)
    base = {"w": torch.randn(30, 20), "b": torch.randn(30)}
    for name in ("base", "ko", "en"):
        (tmp_path / name).mkdir()
        moved = {key: value + (0 if name == "base" else 0.1 * torch.randn_like(value)) for key, value in base.items()}
        save_file(moved, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text("{}")

    def call(*arguments: str) -> Any:
        words = ["merge", *(str(tmp_path / word[2:]) if word.startswith("./") else word for word in arguments)]
        return CliRunner().invoke(app, words, catch_exceptions=True)

    sound = ["task-arithmetic", "-b", "./base", "-m", f"{tmp_path}/ko=0.4", "-m", f"{tmp_path}/en=0.6", "-o", "./out"]
    done = call(*sound, "--json", "--threads", "1", "--device", "cpu")
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["tensors"] == 2 and told["output"] == str(tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    ko, en = (load_file(tmp_path / name / "model.safetensors") for name in ("ko", "en"))
    torch.testing.assert_close(found["w"], base["w"] + 0.4 * (ko["w"] - base["w"]) + 0.6 * (en["w"] - base["w"]))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "merge.json",
        "model.safetensors",
    ]
    assert not list(tmp_path.glob(".ablab-*"))

    for words, kind, message in (
        (sound, ConfigError, "exists already"),
        (["tis", *sound[1:-1], "./o"], ConfigError, "did you mean ties"),
        (["ties", "-b", "./base", "-m", "./ko", "-o", "./o"], ConfigError, "ties needs density"),
        (["ties", "-b", "./base", "-m", f"{tmp_path}/ko=x", "-o", "./o"], ConfigError, "both numbers"),
        (["ties", "-b", "./base", "-m", "./nowhere", "-o", "./o"], ConfigError, "no such folder"),
    ):
        wrong = call(*words)
        assert isinstance(wrong.exception, kind), wrong.exception
        assert message in str(wrong.exception)
    save_file(base, tmp_path / "ko" / "model.safetensors")
    wrong = call(*sound[:-1], "./o")
    assert isinstance(wrong.exception, DataError) and "task vector is zero" in str(wrong.exception)
    assert not (tmp_path / "o").exists() and not list(tmp_path.glob(".ablab-*"))
