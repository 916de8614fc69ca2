"""A sweep is checked where it stands, and `vary` equals writing the values into the study."""

from __future__ import annotations

import pytest

from ablab.contract.failure import ConfigError
from ablab.contract.select import Select
from ablab.study.selects import needing, vary

TEXT = """\
name: toy
task: task.py:SPEC
defaults:
  data: {source: books}
  pipeline:
    select: {sweep: {pipeline.train.optimizer.learning_rate: [1e-3, 1e-4], model.layers: [1, 2]}, metric: val/loss}
    train: {steps: 5, needs: [prepare, select]}
experiments: {one: {}}
"""


def test_a_sweep_is_part_of_the_pipeline(study_of):
    one = study_of(TEXT).experiments["one"]
    assert [stage.name for stage in one.stages] == ["prepare", "select", "train", "evaluate"]
    parameters = one.stage("select").parameters
    assert isinstance(parameters, Select)
    assert parameters.sweep["model.layers"] == (1, 2)
    assert parameters.mode == "min"
    assert parameters.seeds is None
    assert [stage.name for stage in needing(one.stages, "select")] == ["train"]


def test_varying_a_stage_equals_writing_the_values(study_of):
    values = {
        "pipeline.train.optimizer.learning_rate": 1e-4, "model.layers": 7, "model.connector": {"kind": "deep"},
        "pipeline.train.data.source": "films",
    }  # fmt: skip
    varied = vary(study_of(TEXT).experiments["one"].stage("train"), values)
    written = study_of(
        TEXT.replace("{steps: 5,", "{steps: 5, optimizer: {learning_rate: 1e-4}, data: {source: films},").replace(
            "{one: {}}", "{one: {model: {layers: 7, connector: {kind: deep}}}}"
        )
    )
    stage = written.experiments["one"].stage("train")
    assert varied.sections == stage.sections
    assert varied.parameters == stage.parameters


@pytest.mark.parametrize(
    "values", [{"pipeline.evaluate.split": "val"}, {"model.layers": "x"}, {"model.layrs": 1}, {"data": 3}]
)
def test_values_that_do_not_fit_are_refused(study_of, values):
    with pytest.raises(ConfigError):
        vary(study_of(TEXT).experiments["one"].stage("train"), values)


@pytest.mark.parametrize(
    ("old", "new", "path", "message", "suggestion"),
    [
        ("model.layers: [1", "model.layrs: [1", "sweep.model.layrs", "has no path", "model.layers"),
        ("model.layers: [1", "model.layers: [x", "sweep.model.layers[0]", "a whole number", None),
        ("model.layers: [1", "model.width: [9", "sweep.model", "not divisible", None),
        ("model.layers: [1, 2]", "pipeline.evaluate.split: [val]", "sweep.pipeline.evaluate.split", "no path", None),
        ("model.layers: [1, 2]", "model.layers: []", "sweep.model.layers", "at least 1", None),
        ("learning_rate: [1e-3", "learning_rate: [-1",
         "sweep.pipeline.train.optimizer.learning_rate[0]", "greater", None),
        ("needs: [prepare, select]", "needs: [prepare]", "", "exactly one stage", None),
        ("experiments: {one: {}}",
         "experiments: {one: {}, two: {pipeline: {select: null, train: {needs: one.select}}}}",
         None, "only its own experiment", None),
        ("metric: val/loss", "mode: least", "mode", "min or max", None),
        ("metric: val/loss", "metric: val/los", "metric", "yields the metric", "val/loss"),
    ],
)  # fmt: skip
def test_a_sweep_is_checked(problems_of, old, new, path, message, suggestion):
    assert old in TEXT
    problems = problems_of(TEXT.replace(old, new))
    full = "defaults.pipeline.select" + (f".{path}" if path else "")
    matching = [p for p in problems if (path is None or p.path == full) and message in p.message]
    assert matching, "\n".join(map(str, problems))
    assert matching[0].line
    if suggestion:
        assert matching[0].suggestion == suggestion


def test_two_sweeps_in_two_experiments_are_each_their_own(study_of):
    study = study_of(TEXT.replace("{one: {}}", "{one: {}, two: {model: {width: 16}}}"))
    one, two = study.experiments.values()
    assert one.stage("select") is two.stage("select")
    assert one.stage("train") is not two.stage("train")


def test_a_mistake_in_the_swept_stage_is_told_once_and_alone(problems_of):
    (problem,) = problems_of(TEXT.replace("{steps: 5,", "{steps: many,"))
    assert problem.path == "defaults.pipeline.train.steps"
