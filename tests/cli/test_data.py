"""`ablab data` as a user types it: a worker does the work, its errors come back in its words, nothing stays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablab.cli.main import app
from ablab.contract.failure import ConfigError, DataError
from ablab.data.emoji import concepts
from ablab.data.mini_m2kr import write_mini_m2kr
from ablab.data.tables.describe import as_json, describe
from ablab.launch.on_demand import on_demand


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_mini_m2kr(folder, subsets=("okvqa",), concepts=concepts()[::10])
    return folder


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "temporary"


def call(*arguments: object):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_describe_prints_what_the_counts_are(files, own_temporary_folder):
    path = files / "okvqa_train.jsonl"
    done = call("describe", path, "--json", "--processes", 1)
    assert done.exit_code == 0, done.exception
    assert json.loads(done.output) == json.loads(json.dumps(as_json(describe([path]))))
    assert not list(own_temporary_folder.iterdir()), "the worker's folder is gone"


def test_a_filtered_set_is_written_and_told(files, tmp_path):
    target = tmp_path / "kept.jsonl"
    done = call("filter", files / "okvqa_train.jsonl", "-o", target)
    assert done.exit_code == 0, done.exception
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert rows and all(row["image_path"] != "NA" and "NA" not in row["passage_image_path"] for row in rows)
    assert f"rows kept\t{len(rows):,}" in done.output
    again = call("filter", files / "okvqa_train.jsonl", "-o", target)
    assert "exists; choose another name" in str(again.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("balance", "x.jsonl", "-o", "y.jsonl"), "by one of rows, share and per_stratum"),
        (("balance", "x.jsonl", "-o", "y.csv", "--rows", "3"), "name a file that ends in .jsonl"),
        (("describe", "x.jsonl", "--field", "qestion=text"), "did you mean question"),
        (("filter", "x.jsonl", "-o", "y.jsonl", "--require", "picture"), "require.0"),
    ],
)
def test_mistakes_on_the_command_line_start_no_worker(arguments, message, own_temporary_folder):
    done = call(*arguments)
    assert isinstance(done.exception, ConfigError) and message in str(done.exception)
    assert not list(own_temporary_folder.iterdir())


def test_what_goes_wrong_in_the_worker_is_told_in_its_words(tmp_path, own_temporary_folder):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"a": 1}\noops\n')
    shares: list[float] = []
    with (
        pytest.raises(DataError, match=r"broken.jsonl, line 2: not JSON") as error,
        on_demand(task="command", kind="describe", parameters={"files": [str(path)]}, progress=shares.append),
    ):
        raise AssertionError("there is no answer")
    assert error.value.detail["row"] == 2
    assert not list(own_temporary_folder.iterdir())


def test_an_interrupt_ends_the_worker(tmp_path, own_temporary_folder):
    script = (
        "import tempfile; tempfile.tempdir = %r\n"
        "from ablab.launch.on_demand import on_demand\n"
        "parameters = {'command': [%r, '-c', 'import time; time.sleep(600)']}\n"
        "with on_demand(task='command', kind='command', parameters=parameters, sections={'parameters': {}}): pass\n"
    )
    program = [sys.executable, "-c", script % (str(own_temporary_folder), sys.executable)]
    process = subprocess.Popen(program, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 120
    while not list(own_temporary_folder.glob("*/*/attempts/1/events.jsonl")):
        assert process.poll() is None and time.monotonic() < limit, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert not list(own_temporary_folder.iterdir())
