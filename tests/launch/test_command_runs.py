"""Command stages under the whole lab: memory that runs out, keys, late choices, code that is missing or edited."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from ablab.contract.command import COMMAND, Command
from ablab.contract.order import Resources
from ablab.lab import Lab, load
from ablab.launch.orders import wanted_metrics
from ablab.launch.shrink import shrink
from ablab.study.schema import Stage

SCRIPT = """
    import json, pathlib, sys
    batch, accumulate, out = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    with open(out.parent / "tries.jsonl", "a") as file:
        print(json.dumps([batch, accumulate]), file=file)
    if batch > LIMIT:
        print("RuntimeError: CUDA out of memory. Tried to allocate 2 GiB")
        raise SystemExit(1)
    print("val/loss", 1 / (batch * accumulate))
"""
STUDY = """
    name: hungry
    task: command
    seeds: [0]
    defaults:
      parameters: {batch: 12, accumulate: 1}
      pipeline:
        train:
          kind: command
          command: python script.py {batch} {accumulate} {output}
          code: [script.py]
          metrics: [{line: "val/loss {val/loss}"}]
          out_of_memory: {halve: [batch], double: [accumulate]}
    experiments:
      base: {}
      other: {like: base, parameters: {batch: 6}}
    comparisons:
      - {baseline: base, variants: [other], factor: parameters.batch, metric: val/loss, criterion: ratio <= 3}
"""


def lab_of(tmp_path: Path, *, limit: int = 3, study: str = STUDY, overrides: tuple[str, ...] = ()) -> Lab:
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT).replace("LIMIT", str(limit)))
    (tmp_path / "study.yaml").write_text(textwrap.dedent(study))
    return load(tmp_path / "study.yaml", store=tmp_path / "lab", overrides=overrides)


def test_memory_that_runs_out_changes_what_the_study_maps_and_keeps_the_batch(tmp_path: Path) -> None:
    lab = lab_of(tmp_path)
    summary = lab.run()
    assert len(summary.done) == 2 and not summary.failed, summary
    run = lab.plan().run_of("base", 0, "train")
    assert run is not None
    folder = lab.store.run(run.name)
    tries = [json.loads(line) for line in (folder.path / "tries.jsonl").read_text().splitlines()]
    assert tries == [[12, 1], [6, 2], [3, 4]]
    assert [issue["kind"] for issue in folder.read_issues()] == ["out-of-memory"] * 2
    assert "batch 12 -> 6, accumulate 1 -> 2; batch x accumulate kept" in folder.read_issues()[0]["resolution"]
    result = folder.read_result()
    assert result is not None and result.facts["command.changed"] == {"batch": 3, "accumulate": 4}
    assert result.metrics["val/loss"] == pytest.approx(1 / 12)
    report = lab.report()
    assert "batch 12 -&gt; 6" in report.read_text() or "batch 12 -> 6" in report.read_text()


def test_what_cannot_be_halved_stops_and_says_so(tmp_path: Path) -> None:
    summary = lab_of(tmp_path, limit=2).run()
    assert len(summary.failed) == 2 and all("out of memory" in message for message in summary.failed.values())


@pytest.mark.parametrize(
    ("memory", "before", "after", "says"),
    [
        ({"halve": ["a"], "double": ["b"]}, {}, {"a": 4, "b": 6}, "a x b kept"),
        ({"halve": ["a"], "double": ["b"]}, {"a": 4, "b": 6}, {"a": 2, "b": 12}, "a 4 -> 2, b 6 -> 12"),
        ({"halve": ["a"]}, {}, {"a": 4}, "a 8 -> 4"),
        ({"halve": ["b"]}, {}, None, "b is 3 and cannot be halved"),
        ({}, {}, None, "names no parameters"),
    ],
)
def test_the_next_attempts_parameters(memory, before, after, says) -> None:
    parameters = Command(command="p {a} {b}", parameters={"a": 8, "b": 3}, out_of_memory=memory)
    stage = Stage(name="t", kind="command", spec=COMMAND, needs=(), sections={}, parameters=parameters)
    found = shrink(stage, Resources(parameters=before), {})
    assert says in found.says
    assert (found.resources and found.resources.parameters) == after


def test_a_parameter_changes_the_keys_of_the_stages_that_use_it_only(tmp_path: Path) -> None:
    study = """
        name: two
        task: command
        seeds: [1, 2]
        defaults:
          parameters: {a: 1, b: 1}
          pipeline:
            first: {kind: command, command: "echo {a} {seed}"}
            second: {kind: command, needs: [first], command: "echo {b} {input.first}"}
        experiments: {base: {}, late: {like: base, parameters: {b: 2}}, early: {like: base, parameters: {a: 2}}}
    """
    plan = lab_of(tmp_path, study=study).plan()
    keys = {(arm, seed, stage): plan.by_user[arm, seed, stage] for arm, seed, stage in plan.by_user}
    assert keys["base", 1, "first"] == keys["late", 1, "first"] != keys["early", 1, "first"]
    assert keys["base", 1, "first"] != keys["base", 2, "first"], "drawn from the seed"
    assert len({keys[arm, 1, "second"] for arm in ("base", "late", "early")}) == 3


def test_code_and_data_are_in_the_key_and_paths_are_not(tmp_path: Path) -> None:
    def key(lab: Lab) -> str:
        return lab.plan().by_user["base", 0, "train"]

    first = key(lab_of(tmp_path))
    assert key(lab_of(tmp_path)) == first
    assert key(lab_of(tmp_path, limit=4)) != first
    (tmp_path / "elsewhere").mkdir()
    assert key(lab_of(tmp_path / "elsewhere")) == first
    data = STUDY.replace("code: [script.py]", "code: [script.py]\n          data: [d.txt]")
    (tmp_path / "d.txt").write_text("1")
    with_data = key(lab_of(tmp_path, study=data))
    (tmp_path / "d.txt").write_text("2")
    assert len({first, with_data, key(lab_of(tmp_path, study=data))}) == 3


def test_missing_code_is_a_finding_and_never_starts(tmp_path: Path) -> None:
    lab = lab_of(tmp_path, study=STUDY.replace("code: [script.py]", "code: [script.py, lib/gone.py]"))
    assert {run.status for run in lab.plan().runs.values()} == {"unresolved"}
    errors = [finding for finding in lab.check() if finding.severity == "error"]
    assert any("lib/gone.py" in finding.message for finding in errors)


def test_the_metrics_a_study_judges_by_are_asked_of_the_command_that_tells_them(tmp_path: Path) -> None:
    lab = lab_of(tmp_path)
    assert {wanted_metrics(run, lab.study) for run in lab.plan().runs.values()} == {("val/loss",)}


def test_a_sweep_tries_values_of_a_parameter_and_runs_the_best(tmp_path: Path) -> None:
    study = STUDY.replace(
        "pipeline:\n",
        "pipeline:\n        tune: {kind: select, sweep: {parameters.accumulate: [1, 2]}, metric: val/loss}\n",
    ).replace("          kind: command\n", "          kind: command\n          needs: [tune]\n", 1)
    lab = lab_of(tmp_path, limit=99, study=study, overrides=("experiments.other=null", "comparisons=null"))
    summary = lab.run()
    assert not summary.failed and not summary.blocked, summary
    run = lab.plan().run_of("base", 0, "train")
    result = lab.store.run(run.name).read_result()
    assert result.facts["command.parameters"] == {"batch": 12, "accumulate": 2}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("{batch} {accumulate}", "{batch} 1"), "parameters.accumulate is not used"),
        (("{batch} {accumulate}", "{batch} {acumulate}"), "did you mean accumulate"),
        (("halve: [batch]", "halve: [bath]"), "did you mean batch"),
        (("{output}", "{outputs}"), "did you mean output"),
        (("{output}", "{input.prepare}"), "no 'prepare' is needed by this stage"),
        (("code: [script.py]", "code: [../script.py]"), "set `folder:`"),
        (("val/loss {val/loss}", "val/loss"), "needs a {name}"),
        (("parameters: {batch: 12,", "parameters: {seed: 1, batch: 12,"), "already means"),
        (("line: \"val/loss {val/loss}\"", "regex: \"(\""), "not a regular expression"),
        (("factor: parameters.batch", "factor: parameters.batsch"), "did you mean parameters.batch"),
        (("metric: val/loss", "metric: val/los"), "did you mean val/loss"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_line_and_nearest_name(tmp_path: Path, change, says) -> None:
    from ablab.study.problems import StudyError

    with pytest.raises(StudyError) as raised:
        lab_of(tmp_path, study=STUDY.replace(*change))
    message = str(raised.value)
    assert says in message and "study.yaml:" in message
