"""Parts of one's own in a built-in task: `file.py:Name` for initialisation, metric and reader, frozen at launch."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

from ablab.lab import Lab, load
from ablab.study.problems import StudyError

PARTS = """
    import torch
    from near import texts

    def zeros(model, *, seed):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.zero_()

    def spread(nats, tokens):
        assert len(nats) == len(tokens)
        return {"nats_std": nats.std(), "share_of_e": (tokens == ord("e")).mean()}

    def read(split, *, folder):
        return texts(folder) if split == "train" else ()

    def wrong(split):
        return ()
"""
NEAR = """
    from pathlib import Path
    def texts(folder):
        return Path(folder, "own.txt").read_text().split(";")
"""
STUDY = """
    name: parts
    task: language-modeling
    seeds: [1]
    defaults:
      data: {source: "parts.py:read", tokenizer: {name: bytes}, splits: {validation: 0.2, test: 0.2}}
      model: {width: 8, layers: 1, heads: 1, context: 16, dropout: 0}
      pipeline:
        train: {steps: 1, batch: 2, optimizer: {learning_rate: 1e-9}}
        evaluate: {examples: 0, metrics: ["parts.py:spread"]}
    experiments:
      usual: {}
      zeros: {model: {initialization: "parts.py:zeros"}}
    comparisons:
      - {baseline: usual, variants: [zeros], factor: model.initialization, metric: test/nats_std, criterion: value <= 1}
"""


def lab_of(tmp_path: Path, *change: str) -> Lab:
    (tmp_path / "own.txt").write_text(";".join(f"the text number {n} has eels and trees in it" for n in range(60)))
    (tmp_path / "parts.py").write_text(textwrap.dedent(PARTS))
    (tmp_path / "near.py").write_text(textwrap.dedent(NEAR))
    (tmp_path / "study.yaml").write_text(textwrap.dedent(STUDY).replace(*(change or ("", ""))))
    return load(tmp_path / "study.yaml", store=tmp_path / "lab")


def test_parts_of_ones_own_run_and_are_in_the_key(tmp_path: Path) -> None:
    lab = lab_of(tmp_path)
    before = dict(lab.plan().by_user)
    summary = lab.run()
    assert not summary.failed and not summary.blocked, summary
    # Zero weights everywhere: every byte is equally likely.
    assert lab.results.value("zeros", 1, "test/loss").last == pytest.approx(np.log(257), rel=1e-4)
    assert lab.results.value("zeros", 1, "test/nats_std").last == pytest.approx(0, abs=1e-4)
    assert lab.results.value("usual", 1, "test/nats_std").last > 1e-3
    assert 0.05 < lab.results.value("usual", 1, "test/share_of_e").last < 0.3
    (tmp_path / "near.py").write_text(textwrap.dedent(NEAR) + "# edited\n")
    assert lab.plan().by_user["usual", 1, "prepare"] != before["usual", 1, "prepare"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('"parts.py:read"', '"parts.py:wrong"'), "def reader(split: 'str', *, folder: 'str | None')"),
        (('"parts.py:read"', '"parts.py:raed"'), "has no 'raed'"),
        (('"parts.py:read"', '"party.py:read"'), "party.py"),
    ],
)
def test_what_does_not_fit_shows_the_expected_signature(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    lab = lab_of(tmp_path, *change)
    if "party" in says:
        assert {run.status for run in lab.plan().runs.values()} >= {"unresolved"}
        return
    failed = lab.run().failed
    assert any(says in message for message in failed.values()), failed


def test_a_part_that_is_no_file_reference_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"initialization is file\.py:Name"):
        lab_of(tmp_path, '"parts.py:zeros"', "orthogonal")
