"""Followers see what appears, in the pieces in which it appears, and nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.command import Metrics, usual_name
from ablab.contract.patterns import compile_line, number
from ablab.worker.command.readings import Csv, Files, Json, Jsonl, Lines, Reading


def told(readings: list[Reading]) -> list[tuple[int | None, dict[str, float]]]:
    return [(reading.step, dict(reading.values)) for reading in readings]


@pytest.mark.parametrize(
    ("line", "text", "step", "values"),
    [
        ("epoch {step}: loss {train/loss}", "epoch  12:  loss 1.5e-3", 12, {"train/loss": 1.5e-3}),
        ("{step}/{_} [{_}] acc={val/accuracy}", "12/100 [00:01<00:09] acc=98.25%", 12, {"val/accuracy": 98.25}),
        ("loss {val_loss}", "2026-01-01 INFO loss -.5", None, {"val/loss": -0.5}),
        ("tokens {tokens}", "tokens 1,234,567", None, {"tokens": 1234567.0}),
        ("loss {val/loss}", "loss: 3", None, None),
        ("loss {val/loss}", "loss inf", None, {"val/loss": float("inf")}),
    ],
)
def test_a_template_reads_the_numbers_of_a_line(line, text, step, values):
    reading = Lines(Metrics(line=line)).read(text)
    assert (reading and dict(reading.values)) == values and (reading and reading.step) == (step if values else None)


def test_a_regular_expression_reads_its_named_groups():
    source = Metrics(regex=r"it (?P<it>\d+)\b.*?(?P<ppl>[\d.]+)$", step="it", names={"ppl": "val/perplexity"})
    reading = Lines(source).read("it 7 took 3 ms, perplexity 21.5")
    assert told([reading]) == [(7, {"val/perplexity": 21.5})]


@given(st.floats(allow_nan=False))
def test_any_number_python_prints_is_read_back(value):
    pattern, names = compile_line("x {v} y")
    match = pattern.search(f"x {value} y")
    assert names == ("v",) and match is not None and number(match[1]) == value


@pytest.mark.parametrize(
    ("written", "meant"),
    [("eval_loss", "val/loss"), ("val_accuracy", "val/accuracy"), ("train_loss", "train/loss"), ("loss", "train/loss"),
     ("validation_f1", "val/f1"), ("test_bleu", "test/bleu"), ("bleu", "bleu"), ("val/loss", "val/loss"),
     ("valuable", "valuable"), ("evaluation", "evaluation")],
)  # fmt: skip
def test_names_as_programs_write_them(written, meant):
    assert usual_name(written) == meant


def test_rows_arrive_once_and_a_torn_line_waits(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    follower = Jsonl(path, Metrics(jsonl="m.jsonl"))
    assert follower.poll() == []
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert told(follower.poll()) == [(1, {"train/loss": 2.0})]
    with path.open("a") as file:
        file.write('ss": 1.0, "val": {"acc": 0.5, "name": "x"}, "done": true}\nnot json\n')
    assert told(follower.poll()) == [(2, {"train/loss": 1.0, "val/acc": 0.5})]
    assert follower.poll() == [] and follower.skipped == 1


def test_a_file_begun_anew_is_read_anew_and_a_torn_line_costs_only_itself(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": {"b')
    follower = Jsonl(path, Metrics(jsonl="m.jsonl"))
    assert told(follower.poll()) == [(1, {"a": 1.0})]
    with path.open("a") as file:
        file.write('{"step": 2, "a": {"b": 2}}\n')
    assert told(follower.poll()) == [(2, {"a/b": 2.0})] and follower.skipped == 0
    path.write_text('{"step": 9, "a": 9}\n')
    assert told(follower.poll()) == [(9, {"a": 9.0})]


def test_csv_has_a_header_which_may_come_again(tmp_path: Path):
    path = tmp_path / "m.csv"
    follower = Csv(path, Metrics(csv="m.csv", step="epoch"))
    path.write_text('epoch,val_loss,note\n0,1.5,"a, b"\n1,,c\n')
    assert told(follower.poll()) == [(0, {"val/loss": 1.5})]
    with path.open("a") as file:
        file.write("epoch,val_loss,note\n2,1.25,\n")
    assert told(follower.poll()) == [(2, {"val/loss": 1.25})]
    path.write_text('epoch,val_loss,note,new\n0,1.5,"a, b",\n1,,c,\n2,1.25,,\n3,1,,7\n')
    assert told(follower.poll()) == [(3, {"val/loss": 1.0, "new": 7.0})], "written anew with a column more"
    path.write_text("epoch,other\n3,1\n")
    assert told(follower.poll()) == [(3, {"other": 1.0})]


def test_json_is_read_when_it_changes_and_its_rows_once(tmp_path: Path):
    path = tmp_path / "state.json"
    source = Metrics.model_validate({"json": "state.json", "records": "log_history", "step": "step"})
    follower = Json(path, source)
    history = [{"step": 5, "loss": 2.0, "epoch": 0.5}]
    path.write_text(json.dumps({"log_history": history}))
    assert told(follower.poll()) == [(5, {"train/loss": 2.0, "epoch": 0.5})] and follower.poll() == []
    path.write_text('{"log_history": [')
    assert follower.poll() == []
    history.append({"step": 10, "eval_loss": 1.0})
    path.write_text(json.dumps({"log_history": history}))
    assert told(follower.poll()) == [(10, {"val/loss": 1.0})]
    history = [history[0], {"step": 9, "eval_loss": 1.5}]
    path.write_text(json.dumps({"log_history": history}))
    assert told(follower.poll()) == [(9, {"val/loss": 1.5})], "a history that went back to a checkpoint"


def test_files_that_appear_later_are_followed_too(tmp_path: Path):
    source = Metrics(jsonl="v*/m.jsonl")
    files = Files(lambda: tmp_path.glob("v*/m.jsonl"), lambda path: Jsonl(path, source))
    for version in range(2):
        assert files.poll() == []
        (tmp_path / f"v{version}").mkdir()
        (tmp_path / f"v{version}" / "m.jsonl").write_text(json.dumps({"step": version, "a": version}) + "\n")
        assert told(files.poll()) == [(version, {"a": float(version)})]


def test_event_files_of_tensorboard_are_followed(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    from ablab.worker.command.tensorboard import EventFile, event_files

    def write(step: int, tag: str, value: float) -> None:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        writer.add_event(Event(step=step, summary=summary))
        writer.flush()

    writer = EventFileWriter(str(tmp_path))
    write(3, "val/loss", 0.5)
    (path,) = event_files(tmp_path)
    follower = EventFile(path, Metrics(tensorboard=".", names={"lr-AdamW": "lr"}))
    assert told(follower.poll()) == [(3, {"val/loss": 0.5})]
    write(4, "lr-AdamW", 0.25)
    assert told(follower.poll()) == [(4, {"lr": 0.25})] and follower.poll() == []
    writer.close()
