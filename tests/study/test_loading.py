"""A valid study resolves as written; profiles, like, overrides and quick change what they say and nothing else."""

from __future__ import annotations

import textwrap

import pytest

from ablab.study.schema import Condition


def test_a_study_resolves_as_written(study_of):
    study = study_of()
    assert study.name == "toy-study"
    assert study.seeds == (1, 2, 3)
    assert list(study.experiments) == ["base", "frozen", "longer"]
    base = study.experiments["base"]
    assert (base.label, base.purpose, base.priority, base.estimate) == ("baseline", "to compare with", 2, 16260.0)
    assert base.stage("train").parameters.steps == 100
    assert base.stage("train").parameters.optimizer.learning_rate == 3e-4
    assert base.stage("train").sections["model"].layers == 2
    assert study.references["base"].values == {"val/loss": 1.5, "val/perplexity": 4.5}, "a band by its middle"
    assert study.references["base"].bands == {"val/perplexity": (4.0, 5.0)}
    assert study.retention.best == 2
    assert study.compute.threads == 2
    assert study.accept == {"single-seed": "only a smoke test"}
    assert study.profiles == ("full", "laptop", "smoke")
    assert study.line("defaults.model.layers") == 6
    assert study.line("experiments.frozen.model.heads.frozen") == 14
    assert study.experiments["longer"].line == 15


def test_a_stage_sees_only_the_sections_it_reads(study_of):
    stages = {stage.name: set(stage.sections) for stage in study_of().experiments["base"].stages}
    assert stages == {"prepare": {"data"}, "train": {"model", "data"}, "evaluate": {"model"}}


def test_like_takes_configuration_and_nothing_else(study_of):
    longer = study_of().experiments["longer"]
    assert longer.stage("train").parameters.steps == 200
    assert longer.stage("train").parameters.optimizer.learning_rate == 3e-4
    assert longer.stage("train").sections["model"].heads.frozen
    assert (longer.label, longer.purpose, longer.priority, longer.estimate) == ("", "", 0, None)
    assert longer.planned
    assert longer.seeds == (1,)
    assert not study_of().experiments["frozen"].planned


def test_equal_stages_are_one_object(study_of):
    study = study_of()
    assert study.experiments["base"].stage("prepare") is study.experiments["frozen"].stage("prepare")
    assert study.experiments["base"].stage("train") is not study.experiments["frozen"].stage("train")


def test_default_needs_are_the_nearest_earlier_stage_of_each_kind(study_of):
    study = study_of(
        """\
        name: phases
        task: task.py:SPEC
        defaults:
          data: {source: books}
          pipeline:
            train: {steps: 1}
            second: {kind: train, steps: 2}
            evaluate: {needs: [prepare, second@best]}
        experiments: {one: {}, two: {pipeline: {train: null, second: {needs: [prepare, one.train]}}}}
        """
    )
    one = study.experiments["one"]
    needs = {stage.name: [need.stage for need in stage.needs] for stage in one.stages}
    # `second` was written after `evaluate` of the task's own pipeline; it stands before it because it is needed.
    assert needs == {
        "prepare": [],
        "train": ["prepare"],
        "second": ["prepare", "train"],
        "evaluate": ["prepare", "second"],
    }
    assert [stage.name for stage in one.stages] == ["prepare", "train", "second", "evaluate"]
    assert [need.checkpoint for need in one.stage("evaluate").needs] == ["last", "best"]
    two = study.experiments["two"]
    assert [stage.name for stage in two.stages] == ["prepare", "second", "evaluate"]
    assert [(need.experiment, need.stage) for need in two.stage("second").needs] == [
        (None, "prepare"),
        ("one", "train"),
    ]


def test_a_stage_may_override_a_section(study_of):
    study = study_of(
        """\
        name: a
        task: task.py:SPEC
        defaults:
          data: {source: books}
          pipeline: {train: {steps: 1, model: {layers: 7}}}
        experiments:
          one:
        """
    )
    one = study.experiments["one"]
    assert one.stage("train").sections["model"].layers == 7
    assert one.stage("evaluate").sections["model"].layers == 2


def test_mappings_merge_and_lists_replace(study_of):
    study = study_of(
        """\
        name: a
        task: task.py:SPEC
        seeds: [1, 2]
        defaults:
          data: {source: books, files: [a, b]}
          model: {extra: {x: 1.0}}
          pipeline: {train: {steps: 1}}
        experiments: {one: {data: {files: [c]}, model: {extra: {y: 2.0}}}}
        profiles: {p: {seeds: [9]}}
        """,
        profile="p",
    )
    sections = study.experiments["one"].stage("train").sections
    assert sections["data"].files == ("c",)
    assert sections["model"].extra == {"x": 1.0, "y": 2.0}
    assert study.seeds == (9,)


def test_profiles_overlay_the_study(study_of):
    laptop = study_of(profile="laptop")
    assert laptop.profile == "laptop"
    assert laptop.seeds == (1, 2)
    assert laptop.experiments["frozen"].stage("train").sections["model"].layers == 1
    assert laptop.experiments["longer"].seeds == (1,)
    smoke = study_of(profile="smoke")
    assert list(smoke.experiments) == ["base", "frozen"]


def test_overrides_from_the_top_and_of_every_experiment(study_of):
    study = study_of(
        overrides=[
            "seeds=[7]", "compute.threads=1", "experiments.base.model.layers=5", "model.width=16",
            "pipeline.train.optimizer.learning_rate=1e-3", "comparisons[0].criterion=ratio <= 1.1",
            "data.source=no",
        ]
    )  # fmt: skip
    assert study.seeds == (7,)
    assert study.compute.threads == 1
    train = study.experiments["longer"].stage("train")
    # `frozen` and `longer` are like `base`, and an override from the top is as if the file said so.
    assert train.sections["model"].layers == 5
    assert train.sections["model"].width == 16
    assert train.sections["data"].source == "no"
    assert train.parameters.optimizer.learning_rate == 1e-3
    assert train.parameters.steps == 200
    assert study.comparisons[0].criterion.conditions[0].number == 1.1
    assert study.overrides[0] == "seeds=[7]"


def test_an_override_may_address_an_experiment_that_a_matrix_made(study_of):
    text = """\
    name: a
    task: task.py:SPEC
    defaults: {data: {source: books}, pipeline: {train: {steps: 1}}}
    matrix: {name: "lr{learning_rate}", axes: {pipeline.train.optimizer.learning_rate: [0.001, 0.002]}}
    """
    study = study_of(text, overrides=["experiments.lr0.001.model.layers=9"])
    layers = {name: arm.stage("train").sections["model"].layers for name, arm in study.experiments.items()}
    assert layers == {"lr0.001": 9, "lr0.002": 2}


def test_quick_makes_one_epoch_of_everything_that_trains(study_of):
    study = study_of(quick=True)
    for experiment in study.experiments.values():
        assert experiment.stage("train").parameters.steps is None
        assert experiment.stage("train").parameters.epochs == 1


def test_comparisons_expand_patterns_and_leave_baseline_and_controls_out(study_of):
    text = """\
    name: a
    task: task.py:SPEC
    defaults: {data: {source: books}, pipeline: {train: {steps: 1}}}
    experiments:
      a-base: {}
      a-1: {model: {layers: 3}}
      a-2: {model: {layers: 4}}
      a-broken: {model: {layers: 5}}
    comparisons:
      - {name: first, baseline: a-base, variants: "a-*", factor: [model.layers], metric: val/perplexity@best,
         criterion: ratio <= 1.05 and val/loss difference < 0.1 and value>=2, controls: {fail: [a-broken]},
         also: pipeline.train.steps, confidence: 0.9}
      - {baseline: a-base, variants: [a-1], factor: model, metric: val/loss, exploratory: true}
    """
    first, second = study_of(text).comparisons
    assert first.variants == ("a-1", "a-2")
    assert first.at == "best"
    assert first.metric == "val/perplexity"
    assert first.criterion.conditions == (
        Condition(metric="val/perplexity", quantity="ratio", operator="<=", number=1.05),
        Condition(metric="val/loss", quantity="difference", operator="<", number=0.1),
        Condition(metric="val/perplexity", quantity="value", operator=">=", number=2.0),
    )
    assert first.fail_controls == ("a-broken",)
    assert second.name == "comparison-2"
    assert second.exploratory
    assert second.criterion.conditions == ()


def test_anchors_work_across_a_study(study_of):
    text = """\
    name: a
    task: task.py:SPEC
    defaults: {data: {source: books}, pipeline: {train: &train {steps: 1}}}
    experiments:
      one: {model: &m {layers: 3}}
      two: {model: {<<: *m, width: 4}, pipeline: {train: *train}}
    """
    two = study_of(text).experiments["two"].stage("train").sections["model"]
    assert (two.layers, two.width) == (3, 4)


@pytest.mark.parametrize("name", ["language-modeling"])
def test_the_built_in_task_loads(study_of, name):
    study = study_of(
        textwrap.dedent(
            f"""\
            name: a
            task: {name}
            defaults: {{data: {{source: austen}}, pipeline: {{train: {{steps: 1}}}}}}
            experiments: {{one: {{}}}}
            """
        )
    )
    assert study.task.name == name


def test_a_new_stage_stands_where_it_is_written(study_of):
    text = """\
    name: a
    task: task.py:SPEC
    defaults:
      data: {source: books}
      pipeline: {train: {steps: 1}, second: {kind: train, steps: 2}}
    experiments: {one: {}}
    """
    one = study_of(text).experiments["one"]
    assert [stage.name for stage in one.stages] == ["prepare", "train", "second", "evaluate"]
    # What is evaluated is the nearest earlier training, which is the second.
    assert [need.stage for need in one.stage("evaluate").needs] == ["prepare", "second"]


def test_every_profile_is_checked_whichever_is_in_use(problems_of, study_text):
    text = study_text.replace("model: {layers: 1}", "model: {layers: one}").replace("longer: null", "frozen: null")
    problems = problems_of(text)
    assert [(p.line, p.path) for p in problems] == [
        (16, "experiments.longer.like"), (22, "comparisons[0].variants"), (31, "profiles.laptop.defaults.model.layers"),
    ]  # fmt: skip
    assert [p.message.endswith("(in profile smoke)") for p in problems] == [True, True, False]
