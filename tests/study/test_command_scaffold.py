"""A command line becomes a study that loads, and whose base arm runs exactly what was typed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.command import values_of
from ablab.contract.failure import ConfigError
from ablab.contract.placeholders import fill, fill_all
from ablab.study.command_line import join, take_apart
from ablab.study.command_scaffold import command_scaffold
from ablab.study.loading import load_text
from ablab.study.program_metrics import find_metrics
from ablab.study.schema import Stage, Study

NOWHERE = Path("/nonexistent")


def made(text: str, base: Path, study_folder: Path | None = None) -> Study:
    written = command_scaffold(text, name="made", base=base, study_folder=study_folder or base)
    for profile in ("full", "smoke"):
        study = load_text(written, path=(study_folder or base) / "made.yaml", profile=profile)
    assert study.profile == "smoke"
    return load_text(written, path=(study_folder or base) / "made.yaml")


def words(stage: Stage, **more: object) -> list[str]:
    values = {**values_of(stage.sections, stage.parameters), **more}
    return fill_all(stage.parameters.words(), values.__getitem__)


@pytest.mark.parametrize(
    ("text", "values", "seed"),
    [
        ("python train.py --lr 3e-4 --seed 1", {"lr": 3e-4}, 1),
        ("python train.py --lr=1e-3 --bf16 --name 'a b' -n 4", {"lr": 1e-3, "bf16": True, "name": "a b", "n": 4}, None),
        ("train lr=0.1 model.width=64 +seed=7", {"lr": 0.1, "model_width": 64}, 7),
        ("python -m pkg.train --random-seed 3 --id 007 --flag True", {"id": "007", "flag": "True"}, 3),
        ("torchrun --nproc-per-node 2 train.py --steps -1", {"steps": -1}, None),
        ("prog --json {a} --x {b:1}", {"json": "{a}", "x": "{b:1}"}, None),
    ],
)
def test_flags_become_parameters_and_the_base_arm_runs_what_was_typed(tmp_path, text, values, seed):
    (tmp_path / "train.py").write_text("")
    study = made(text, tmp_path)
    stage = study.experiments["base"].stages[0]
    assert values_of(stage.sections, stage.parameters) == values
    assert study.seeds == ((seed, seed + 1, seed + 2) if seed is not None else (0,))
    typed = [word.replace("3e-4", "0.0003").replace("1e-3", "0.001") for word in shlex.split(text)]
    assert words(stage, seed=seed) == typed


names = st.sampled_from(["lr", "width", "drop-out", "a.b", "name", "x_1", "output_weight"])
values = st.one_of(
    st.integers(-(10**9), 10**9).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(st.characters(codec="ascii", exclude_characters="\0\n\r"), min_size=1, max_size=12),
)


@given(st.lists(st.tuples(names, values), max_size=5, unique_by=lambda pair: pair[0]))
def test_any_flags_are_given_back(pairs):
    typed = ["prog", *(word for name, value in pairs for word in (f"--{name}={value}",))]
    line = take_apart(shlex.join(typed), NOWHERE)
    if line.shell:
        return
    back = fill_all(shlex.split(join(line)), line.values.__getitem__)
    assert len(back) == len(typed)
    for one, other in zip(back, typed, strict=True):
        same_number = _number(one.partition("=")[2]) == _number(other.partition("=")[2]) is not None
        assert one == other or same_number


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def test_outputs_devices_variables_and_files_have_their_place(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("import helper\n")
    (tmp_path / "src" / "helper.py").write_text("")
    (tmp_path / "corpus.txt").write_text("x")
    (tmp_path / "conf.yaml").write_text("x: 1")
    text = "CUDA_VISIBLE_DEVICES=1 WANDB_MODE=offline python src/train.py --config conf.yaml --data corpus.txt"
    study = made(f"{text} --device cuda:0 --output_dir runs/x --save_path out/model.pt", tmp_path, tmp_path / "studies")
    parameters = study.experiments["base"].stages[0].parameters
    assert parameters.words()[1:] == [
        "src/train.py", "--config", "conf.yaml", "--data", "corpus.txt", "--device", "{device}",
        "--output_dir", "{output}", "--save_path", "{output}/model.pt",
    ]  # fmt: skip
    assert set(parameters.code) == {"src/train.py", "src/helper.py", "conf.yaml"} and parameters.data == ("corpus.txt",)
    assert parameters.env == {"WANDB_MODE": "offline"} and parameters.folder == ".."


def test_a_pipe_needs_a_shell_and_keeps_its_parameters(tmp_path):
    study = made("sort --key 2 data.txt | head -n 3 > out.txt", tmp_path)
    stage = study.experiments["base"].stages[0]
    assert stage.parameters.shell and values_of(stage.sections, stage.parameters) == {"key": 2, "n": 3}
    values = values_of(stage.sections, stage.parameters)
    filled = fill(stage.parameters.words()[0], values.__getitem__, quote=True)
    assert filled == "sort --key 2 data.txt | head -n 3 > out.txt"


@pytest.mark.parametrize("text", ["", "A=1", "prog 'open"])
def test_what_is_no_command_line_is_said(text):
    with pytest.raises(ConfigError, match="--command"):
        take_apart(text, NOWHERE)


@pytest.mark.parametrize(
    ("script", "sources", "metric"),
    [
        ("print(f'step {i}: loss {loss.item():.4f}')", ['{line: "step {step}: loss {train/loss}"}'], "train/loss"),
        (
            "print(f'epoch {epoch} | train loss {a:.3f} | val acc {100 * b:.1f}% in {t}s')",
            ['{line: "epoch {step} | train loss {train/loss} | val acc {val/acc}% in {_}s"}'],
            "val/acc",
        ),
        ("print(f'{epoch}/{n} test_loss={x}')", ['{line: "{step}/{_} test_loss={test/loss}"}'], "test/loss"),
        ("print(f'hello {name}'); print('loss', loss)", None, None),
        (
            "Trainer(model=m, args=a, eval_dataset=d)",
            ['{json: "**/trainer_state.json", records: log_history, names: {train_loss: train/mean_loss}}'],
            "val/loss",
        ),
        ("import ablab; ablab.log(1, loss=2)", ["{logged: true}"], None),
        ("def (", None, None),
    ],
)
def test_metrics_are_seen_in_the_script(tmp_path, script, sources, metric):
    path = tmp_path / "train.py"
    path.write_text(script)
    found = find_metrics([path])
    assert (found and list(found.sources)) == sources and (found and found.metric) == metric
