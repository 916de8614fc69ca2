"""A matrix makes every combination once, with stable names, and equals the same experiments written out."""

from __future__ import annotations

import itertools

import pytest

from ablab.study.matrix import value_text

HEAD = """\
name: toy
task: task.py:SPEC
defaults: {data: {source: books}, pipeline: {train: {steps: 1}}}
"""


def test_a_matrix_equals_its_experiments_written_out(study_of):
    made = study_of(
        HEAD
        + """\
experiments: {one: {model: {width: 16}}}
matrix:
  like: one
  name: L{model.layers}-lr{pipeline.train.optimizer.learning_rate}-h{count}
  label: "{layers} layers"
  axes:
    model.layers: [1, 2, 3]
    pipeline.train.optimizer.learning_rate: [3e-4, 1e-5]
    model.heads.count: [2, 4]
  exclude: [{model.layers: 3, model.heads.count: 2}, {model.layers: 1}]
"""
    ).experiments
    rows = [
        (layers, rate, heads)
        for layers, rate, heads in itertools.product((1, 2, 3), ("3e-4", "1e-5"), (2, 4))
        if layers != 1 and (layers, heads) != (3, 2)
    ]
    text = HEAD + "experiments:\n  one: {model: {width: 16}}\n"
    for layers, rate, heads in rows:
        name = f"L{layers}-lr{value_text(float(rate))}-h{heads}"
        text += f"  {name}: {{like: one, model: {{layers: {layers}, heads: {{count: {heads}}}}}, "
        text += f"pipeline: {{train: {{optimizer: {{learning_rate: {rate}}}}}}}}}\n"
    written = study_of(text).experiments
    assert list(made) == list(written)
    for name in made:
        for stage, other in zip(made[name].stages, written[name].stages, strict=True):
            assert (stage.name, stage.needs, stage.sections, stage.parameters) == (
                other.name, other.needs, other.sections, other.parameters,
            )  # fmt: skip
    assert made["L2-lr0.0003-h4"].label == "2 layers"


def test_names_without_a_template_name_every_axis(study_of):
    study = study_of(
        HEAD
        + "matrix:\n  - {axes: {model.layers: [1, 2], model.scale: [auto, 0.5]}}\n"
        + "  - {axes: {model.heads: [{count: 2}, {frozen: true}]}}\n"
    )
    assert list(study.experiments) == [
        "layers1-scaleauto", "layers1-scale0.5", "layers2-scaleauto", "layers2-scale0.5",
        "headscount-2".replace("-", "="), "headsfrozen=true",
    ]  # fmt: skip


def test_ambiguous_ends_are_told_apart(study_of):
    axes = "pipeline.train.steps: [1], pipeline.second.steps: [2]"
    text = HEAD.replace("steps: 1}", "steps: 1}, second: {kind: train, steps: 1}") + f"matrix: {{axes: {{{axes}}}}}\n"
    assert list(study_of(text).experiments) == ["train.steps1-second.steps2"]


def test_experiments_share_what_they_have_in_common(study_of):
    study = study_of(
        HEAD
        + "matrix:\n  axes: {model.layers: [1, 2], pipeline.train.optimizer.learning_rate: [1e-3, 1e-4],\n"
        + "    model.width: [4, 8]}\n"
    )
    arms = list(study.experiments.values())
    assert len(arms) == 8
    assert len({id(arm.stage("prepare")) for arm in arms}) == 1
    assert len({id(arm.stage("train").sections["model"]) for arm in arms}) == 4
    assert len({id(arm.stage("evaluate")) for arm in arms}) == 4
    assert len({id(arm.stage("train").parameters) for arm in arms}) == 2


def test_a_stage_may_be_an_axis(study_of):
    study = study_of(HEAD + "matrix: {name: 'e{evaluate}', axes: {pipeline.evaluate: [{split: val}, {split: test}]}}\n")
    assert [arm.stage("evaluate").parameters.split for arm in study.experiments.values()] == ["val", "test"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-4, "0.0003"), (1e-5, "1e-5"), (1e20, "1e20"), (2.0, "2"), (True, "true"), (None, "null"),
        ("a/b c", "a-b-c"),
        ([1, 2], "1_2"), ({"a": 1.5}, "a=1.5"), (-3, "-3"), (1e-10, "1e-10"), (1.5e-7, "1.5e-7"),
    ],
)  # fmt: skip
def test_values_in_names_are_short_and_safe(value, text):
    assert value_text(value) == text


def test_a_matrix_of_millions_is_refused(problems_of):
    axes = ", ".join(f"model.extra.{name}: [{', '.join(map(str, range(200)))}]" for name in "abcd")
    (problem,) = problems_of(HEAD + f"matrix: {{axes: {{{axes}}}}}\n")
    assert "makes 1600000000 experiments" in problem.message
