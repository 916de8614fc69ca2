"""Gates hold the rest until their number is reproduced, through the real launcher."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from ablab.lab import load

STUDY = """
    name: gated
    task: command
    seeds: [1, 2]
    defaults:
      parameters: {value: 1.0}
      pipeline:
        train:
          kind: command
          command: "printf 'score {value}'"
          metrics: [{line: "score {test/score}"}]
    experiments:
      zero: {gate: {metric: test/score, within: 2 %}, parameters: {value: 0.70}, priority: -5}
      other: {parameters: {value: 0.9}}
    comparisons:
      - {baseline: zero, variants: [other], factor: parameters.value, metric: test/score, criterion: ratio >= 1}
    references:
      zero: {test/score: 0.71, source: a paper}
    profiles:
      laptop: {}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(textwrap.dedent(STUDY))
    return path


def test_what_a_gate_passes_runs_after_it_though_its_priority_is_higher(study: Path, tmp_path: Path):
    lab = load(study, store=tmp_path / "lab")
    assert [gate.status for gate in lab.plan().gates] == ["waiting"]
    order: list[str] = []
    summary = lab.run(on_event=lambda notice: order.append(notice.text) if notice.kind == "finished" else None)
    assert len(summary.done) == 2 and not summary.blocked
    assert [line.split()[0] for line in order] == ["zero", "other"]
    (gate,) = lab.plan().gates
    assert gate.status == "passed" and gate.found == pytest.approx(0.70)


def test_a_missed_gate_holds_the_rest_and_says_why_until_it_is_taken_away(study: Path, tmp_path: Path):
    lab = load(study, store=tmp_path / "lab", overrides=("references.zero.test/score=0.75",))
    summary = lab.run()
    assert len(summary.done) == 1 and len(summary.blocked) == 1 and summary.exit_code != 0
    (why,) = summary.blocked.values()
    assert "gate zero" in why and "0.7" in why and "0.75" in why
    again = load(study, store=tmp_path / "lab", overrides=("references.zero.test/score=0.75",)).run()
    assert len(again.blocked) == 1 and not again.done
    freed = load(study, store=tmp_path / "lab", overrides=("experiments.zero.gate=null",)).run()
    assert len(freed.done) == 1 and not freed.blocked


def test_asking_for_one_arm_runs_its_gate_first(study: Path, tmp_path: Path):
    summary = load(study, store=tmp_path / "lab").run(only=("other",))
    assert len(summary.done) == 2


def test_a_smaller_profile_has_no_reference_and_so_an_open_gate(study: Path, tmp_path: Path):
    lab = load(study, profile="laptop", store=tmp_path / "lab")
    (gate,) = lab.plan().gates
    assert gate.status == "open" and not gate.held and "no reference" in gate.text
    own = load(study, profile="laptop", store=tmp_path / "lab", overrides=("experiments.zero.gate.reference=0.7",))
    assert [gate.status for gate in own.plan().gates] == ["waiting"]


def test_a_gate_is_in_no_key(study: Path, tmp_path: Path):
    keys = [
        list(load(study, store=tmp_path / "lab", overrides=o).plan().runs)
        for o in ((), ("experiments.zero.gate=null",))
    ]
    assert keys[0] == keys[1]
