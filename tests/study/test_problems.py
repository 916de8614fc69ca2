"""Every mistake is told with file, line, path, what was found and expected, and the nearest valid name."""

from __future__ import annotations

import pytest

HEAD = """\
name: toy
task: task.py:SPEC
defaults:
  model: {layers: 2}
  data: {source: books}
  pipeline: {train: {steps: 1}}
experiments:
  one: {}
  two: {like: one}
"""

#: settings of an experiment, path below it, part of the message, suggestion
EXPERIMENT_MISTAKES = [
    ("lik: one", "lik", "unknown key", "like"),
    ("like: on", "like", "no experiment is called 'on'", "one"),
    ("layers: 3", "layers", "unknown key", "model.layers"),
    ("model: {layers: two}", "model.layers", "a whole number, found the text 'two'", None),
    ("model: {layers: '3'}", "model.layers", "a number, found the text '3'", None),
    ("model: {layers: true}", "model.layers", "found true", None),
    ("model: {layers: 0}", "model.layers", "at least 1, found 0", None),
    ("model: {layers: 101}", "model.layers", "at most 100", None),
    ("model: {layers: null}", "model.layers", "a whole number, found null", None),
    ("model: {heads: {frozen: yes}}", "model.heads.frozen", "true or false, found the text 'yes'", None),
    ("model: {heads: {frozen: 1}}", "model.heads.frozen", "true or false, found 1", None),
    ("model: {width: 9}", "model", "not divisible by heads.count", None),
    ("model: {connector: {kind: deep, gain: 1}}", "model.connector.gain", "unknown key", None),
    ("model: {connector: {kind: wide}}", "model.connector", "linear", None),
    ("model: {scale: [1]}", "model.scale", "a number or auto, found a list", None),
    ("model: {scale: atuo}", "model.scale", "or auto", "auto"),
    ("model: 3", "model", "expected a mapping, found 3", None),
    ("pipeline: 3", "pipeline", "mapping of stages", None),
    ("pipeline: {train: 3}", "pipeline.train", "stage's parameters", None),
    ("pipeline: {trian: {}}", "pipeline.trian", "no stage kind", "train"),
    ("pipeline: {t: {kind: trian}}", "pipeline.t.kind", "unknown stage kind", "train"),
    ("pipeline: {train: {stepz: 3}}", "pipeline.train.stepz", "unknown key", "steps"),
    ("pipeline: {train: {epochs: 3}}", "pipeline.train", "exactly one of steps and epochs", None),
    ("pipeline: {train: {needs: [prepar]}}", "pipeline.train.needs[0]", "which is no stage", "prepare"),
    ("pipeline: {train: {needs: evaluate}}", "pipeline.train.needs", "of kind evaluate", None),
    ("pipeline: {train: {needs: [prepare@best]}}", "pipeline.train.needs[0]", "makes none", None),
    ("pipeline: {evaluate: {needs: [train@worst]}}", "pipeline.evaluate.needs[0]", "@last or @best", None),
    ("pipeline: {evaluate: {needs: [noe.train]}}", "pipeline.evaluate.needs[0]", "no experiment", "one"),
    ("pipeline: {evaluate: {needs: [one.train, one.train]}}", "pipeline.evaluate.needs[1]", "twice", None),
    ("pipeline: {evaluate: {needs: {a: 1}}}", "pipeline.evaluate.needs", "list of stages", None),
    ("pipeline: {prepare: {model: {}}}", "pipeline.prepare.model", "does not read", None),
    ("pipeline: {a: {kind: train, steps: 1, needs: b}, b: {kind: train, steps: 1, needs: a}}",
     "pipeline.a", "in a circle", None),
    ("pipeline: {prepare: null, train: null, evaluate: null}", "pipeline", "every stage is removed", None),
    ("estimate: soon", "estimate", "no duration", None),
    ("seeds: []", "seeds", "at least 1", None),
    ("seeds: [1, 1]", "seeds", "twice", None),
]  # fmt: skip

#: text, line, path, part of the message, suggestion
MISTAKES = [
    ("name: a\ntask: task.py:SPEC\nexperimets: {}\n", 3, "experimets", "unknown key", "experiments"),
    (HEAD + "  three:\n    model: {layrs: 3}\n", 11, "experiments.three.model.layrs", "unknown key", "layers"),
    (HEAD + "  three: 3\n", 10, "experiments.three", "expected a mapping", None),
    (HEAD + "  a/b: {}\n", 10, "experiments.a/b", "cannot name an experiment", None),
    (HEAD + "  a: {like: b}\n  b: {like: a}\n", 11, "experiments.b.like", "in a circle", None),
    (HEAD + "  one: {}\n", 10, "experiments.one", "given twice", None),
    (HEAD + "seeds: 3\n", 10, "seeds", "expected a list, found 3", None),
    (HEAD + "seeds: [1, x]\n", 10, "seeds[1]", "whole number", None),
    (HEAD + "seeds: [-1]\n", 10, "seeds[0]", "at least 0", None),
    (HEAD + "seeds: [1, 1]\n", 10, "seeds", "twice", None),
    (HEAD + "compute: {thread: 3}\n", 10, "compute.thread", "unknown key", "threads"),
    (HEAD + "retention: {best: -1}\n", 10, "retention.best", "at least 0", None),
    (HEAD + "accept: {single-seed: ''}\n", 10, "accept.single-seed", "at least 1 characters", None),
    (HEAD + "profiles: {laptop: {sedes: [1]}}\n", 10, "profiles.laptop.sedes", "unknown key", "seeds"),
    (HEAD + "profiles: {laptop: {name: b}}\n", 10, "profiles.laptop.name", "cannot change", None),
    (HEAD + "profiles: {laptop: 3}\n", 10, "profiles.laptop", "shaped like the study", None),
    (HEAD + "references: {on: {val/loss: 1}}\n", 10, "references.on", "no experiment is called", "one"),
    (HEAD + "references: {one: {val/los: 1}}\n", 10, "references.one.val/los", "yields the metric", "val/loss"),
    (HEAD + "references: {one: {val/loss: low}}\n", 10, "references.one.val/loss", "expected a number", None),
    (HEAD + "references: {one: {val/loss: [1, low]}}\n", 10, "references.one.val/loss[1]", "expected a number", None),
    (HEAD + "references: {one: {val/loss: [1, 2, 3]}}\n", 10, "references.one.val/loss", "2", None),
    (HEAD + "references: {one: {val/loss: [2, 1]}}\n", 10, "references.one", "a band is [low, high]", None),
    (HEAD + "matrix: {axes: {model.layrs: [1]}}\n", 10, "matrix.axes.model.layrs", "no experiment has", "model.layers"),
    (HEAD + "matrix: {axes: {model.layers: [1, x]}}\n", 10, "matrix.axes.model.layers[1]", "a whole number", None),
    (HEAD + "matrix: {axes: {model.layers: [1, 1]}}\n", 10, "matrix", "two experiments are called", None),
    (HEAD + "matrix: {axes: {model.layers: [1], model: [{}]}}\n", 10, "matrix.axes.model", "change the same", None),
    (HEAD + "matrix: {name: 'a{layer}', axes: {model.layers: [1]}}\n", 10, "matrix.name", "is no axis", "model.layers"),
    (HEAD + "matrix: {like: tow, axes: {model.layers: [1]}}\n", 10, "matrix.like", "no experiment is called", "two"),
    (HEAD + "matrix: {axes: {model.layers: [1]}, exclude: [{model.layer: 1}]}\n", 10,
     "matrix.exclude[0].model.layer", "is no axis", "model.layers"),
    (HEAD + "matrix: {axes: {model.layers: [1]}, exclude: [{model.layers: 2}]}\n", 10,
     "matrix.exclude[0].model.layers", "no value of the axis", None),
    (HEAD + "matrix: {}\n", 10, "matrix.axes", "is required", None),
    ("name: toy\ntask: task.py:SPEC\n", 1, "", "at least one experiment", None),
    ("name: toy\nexperiments: {}\n", 1, "task", "is required", None),
    ("name: toy\ntask: 3\n", 2, "task", "expected text", None),
    ("name: toy\ntask: langage-modeling\n", 2, "task", "unknown task", "language-modeling"),
    ("name: toy\ntask: tsk.py:SPEC\n", 2, "task", "no file tsk.py", "task.py"),
    ("name: a b\ntask: task.py:SPEC\n", 1, "name", "text like", None),
    ("", 1, "", "found nothing", None),
    ("- a\n", 1, "", "found a list", None),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "path", "message", "suggestion"), EXPERIMENT_MISTAKES)
def test_a_mistake_in_an_experiment(problems_of, settings, path, message, suggestion):
    problems = problems_of(f"{HEAD}  three: {{{settings}}}\n")
    matching = [p for p in problems if p.path == f"experiments.three.{path}" and message in p.message]
    assert matching, "\n".join(map(str, problems))
    assert (matching[0].line, matching[0].suggestion) == (10, suggestion)


@pytest.mark.parametrize(("text", "line", "path", "message", "suggestion"), MISTAKES)
def test_a_mistake_is_told_with_line_path_and_nearest_name(problems_of, text, line, path, message, suggestion):
    problems = problems_of(text)
    matching = [problem for problem in problems if problem.path == path and message in problem.message]
    assert matching, "\n".join(map(str, problems))
    assert matching[0].line == line
    assert matching[0].suggestion == suggestion
    assert matching[0].file.endswith("study.yaml")


def comparison(**changes):
    entry = {
        "baseline": "one",
        "variants": "[two]",
        "factor": "model.layers",
        "metric": "val/loss",
        "criterion": "ratio < 1",
    }
    entry.update(changes)
    return (
        HEAD
        + "comparisons:\n"
        + "\n".join(
            f"  {'- ' if not i else '  '}{key}: {value}"
            for i, (key, value) in enumerate(entry.items())
            if value is not None
        )
        + "\n"
    )


@pytest.mark.parametrize(
    ("changes", "path", "message", "suggestion"),
    [
        ({"baseline": "onee"}, "baseline", "no experiment is called 'onee'", "one"),
        ({"variants": "[tow]"}, "variants", "no experiment is called 'tow'", "two"),
        ({"variants": "['x*']"}, "variants", "no experiment matches", None),
        ({"variants": "[one]"}, "variants", "is the baseline", None),
        ({"variants": "[]"}, "variants", "at least one variant", None),
        ({"factor": "model.layer"}, "factor", "no experiment has the path", "model.layers"),
        ({"factor": "layers"}, "factor", "no experiment has the path", "model.layers"),
        ({"also": "pipeline.train.batches"}, "also", "no experiment has the path", "pipeline.train.validation.batches"),
        ({"metric": "val/los"}, "metric", "yields the metric", "val/loss"),
        ({"metric": "val/loss@first"}, "metric", "expected metric, metric@last or metric@best", None),
        ({"metric": None}, "criterion", "names no metric", None),
        ({"metric": None, "criterion": None, "exploratory": "true"}, "", "`metric` is required", None),
        ({"criterion": None}, "", "`criterion` is required", None),
        ({"criterion": "ration < 1"}, "criterion", "no quantity", "ratio"),
        ({"criterion": "ratio = 1"}, "criterion", "no operator", None),
        ({"criterion": "ratio < low"}, "criterion", "no finite number", None),
        ({"criterion": "better"}, "criterion", "is no condition", None),
        ({"criterion": "val/los ratio < 1"}, "criterion", "yields the metric", "val/loss"),
        ({"criterion": "ratio < 1 and"}, "criterion", "", None),
        ({"at": "first"}, "at", "last or best", None),
        ({"confidence": "2"}, "confidence", "less than 1", None),
        ({"controls": "{fail: [tow]}"}, "controls.fail[0]", "no experiment is called", "two"),
        ({"controls": "{fails: [two]}"}, "controls.fails", "unknown key", "fail"),
    ],
)  # fmt: skip
def test_a_comparison_is_checked_against_the_study(problems_of, changes, path, message, suggestion):
    problems = problems_of(comparison(**changes))
    full = f"comparisons[0].{path}" if path else None
    matching = [p for p in problems if (full is None or p.path == full) and message in p.message]
    assert matching, "\n".join(map(str, problems))
    assert matching[0].line >= 11
    assert matching[0].suggestion == suggestion


def test_a_mistake_in_the_defaults_is_told_once_at_its_own_line(problems_of):
    text = """\
    name: toy
    task: task.py:SPEC
    defaults:
      model:
        layers: many
        widht: 8
      data: {source: books}
      pipeline:
        train: {steps: 1, epochs: 2}
    experiments:
      one: {model: {heads: {count: 2}}}
      two: {like: one, model: {heads: {count: 8}}}
      three: {pipeline: {train: {clip: 2.0}}}
    """
    problems = problems_of(text)
    assert [(p.line, p.path, p.suggestion) for p in problems] == [
        (5, "defaults.model.layers", None), (6, "defaults.model.widht", "width"), (9, "defaults.pipeline.train", None),
    ]  # fmt: skip


def test_what_is_missing_is_told_where_it_should_stand(problems_of):
    text = (
        "name: toy\ntask: task.py:SPEC\ndefaults: {pipeline: {train: {steps: 1}}}\n"
        "experiments:\n  one: {}\n  two: {data: {limit: 3}}\n"
    )
    assert [(p.line, p.path) for p in problems_of(text)] == [
        (5, "experiments.one.data.source"), (6, "experiments.two.data.source"),
    ]  # fmt: skip


def test_all_problems_are_told_at_once_in_the_order_of_the_file(problems_of):
    text = HEAD.replace("layers: 2", "layers: x") + "  three: {like: nine}\nseeds: []\ncompute: {slots: 0}\nwhat: 1\n"
    problems = problems_of(text)
    assert [p.path for p in problems] == [
        "defaults.model.layers",
        "experiments.three.like",
        "seeds",
        "compute.slots",
        "what",
    ]


def test_circles_across_experiments_are_told(problems_of):
    text = HEAD + (
        "  three: {pipeline: {train: {needs: [prepare, four.train]}}}\n"
        "  four: {pipeline: {train: {needs: [prepare, three.train]}}}\n"
    )
    (problem,) = problems_of(text)
    assert "in a circle" in problem.message
    assert problem.line in (10, 11)


def test_a_need_across_experiments_is_no_circle(study_of):
    study = study_of(HEAD + "  three: {pipeline: {train: {needs: [prepare, one.train]}}}\n")
    assert study.experiments["three"].stage("train").needs[1].experiment == "one"


def test_an_experiment_that_names_itself_means_its_own_stage(study_of):
    study = study_of(HEAD + "  three: {pipeline: {evaluate: {needs: [prepare, three.train@best]}}}\n")
    need = study.experiments["three"].stage("evaluate").needs[1]
    assert (need.experiment, need.stage, need.checkpoint) == (None, "train", "best")


@pytest.mark.parametrize(
    ("override", "message", "suggestion"),
    [
        ("model.layrs=3", "unknown key", "layers"),
        ("layers=3", "no such path", "model.layers"),
        ("seedz=3", "no such path", "seeds"),
        ("modl.layers=3", "no such path", "model.layers"),
        ("compute.thread=1", "unknown key", "threads"),
        ("model.layers=x", "a whole number", None),
        ("model.layers", "expected key=value", None),
        ("=3", "expected key=value", None),
        ("model..layers=3", "expected key=value", None),
        ("model.layers=[1", "not YAML", None),
        ("pipeline.trian.steps=3", "no experiment has a stage", "pipeline.train.steps"),
        ("experiments.on.model.layers=3", "no experiment of this study", "experiments.one"),
        ("comparisons[3].at=best", "", None),
        ("profile.x=1", "no such path", "profiles"),
    ],
)
def test_an_override_is_checked_like_the_file(problems_of, override, message, suggestion):
    problems = problems_of(HEAD, overrides=[override])
    assert any(message in p.message and p.suggestion == suggestion for p in problems), "\n".join(map(str, problems))
    assert all(p.file.startswith("override") for p in problems if p.line is None)


def test_an_unknown_profile_names_the_nearest(problems_of):
    (problem,) = problems_of(HEAD + "profiles: {laptop: {}}\n", profile="labtop")
    assert problem.suggestion == "laptop"
