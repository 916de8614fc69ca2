"""Every key can be explained, and the JSON Schema accepts exactly the shape that loads."""

from __future__ import annotations

import jsonschema
import pytest

from ablab.contract.registry import find_task
from ablab.study.editors import json_schema
from ablab.study.explain import UnknownKeyError, explain, keys
from ablab.study.yaml12 import parse


@pytest.fixture
def task(folder):
    return find_task("task.py:SPEC", folder=folder)


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        (
            "model.width",
            ["Width.", "type: whole number", "default: 8", "unit: features", "limits: at least 1", "key: yes"],
        ),
        ("data.files", ["type: list of text", "default: []", "key: no"]),
        ("data.limit", ["whole number or null", "of stages of kind prepare"]),
        ("data.source", ["none, it is required"]),
        ("model.layers", ["limits: at least 1, at most 100"]),
        ("layers", ["model.layers"]),
        ("defaults.model.heads.count", ["model.heads.count"]),
        ("experiments.any.model.width", ["model.width"]),
        ("profiles.laptop.defaults.model.width", ["model.width"]),
        ("pipeline.train", ["reads sections model, data", "takes runs of prepare, train", "steps", "checkpoints"]),
        ("pipeline.train.needs", ["@last|@best"]),
        ("train.schedule.warmup", ["linear warm-up", "train run"]),
        ("pipeline", ["prepare", "train", "evaluate"]),
        ("seeds", ["Repetitions", "draw from the seed"]),
        ("experiments.estimate", ["seconds"]),
        ("experiments", ["label", "purpose"]),
        ("comparisons.criterion", ["ratio|difference|value", "key: no"]),
        ("comparisons[0].controls.pass", ["must meet"]),
        ("compute.threads", ["key: no"]),
        ("select.sweep", ["Values to try"]),
        ("model", ["layers", "width"]),
    ],
)
def test_a_key_is_explained(task, key, parts):
    text = explain(key, task)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("key", "near"), [("model.layrs", "model.layers"), ("seedz", "seeds"), ("train.stepz", "pipeline.train.steps")]
)
def test_an_unknown_key_names_the_nearest(task, key, near):
    with pytest.raises(UnknownKeyError) as caught:
        explain(key, task)
    assert caught.value.suggestion == near


@pytest.mark.parametrize("name", ["task.py:SPEC", "language-modeling"])
def test_every_key_can_be_explained(folder, name):
    task = find_task(name, folder=folder)
    for key in keys(task):
        assert explain(key, task).startswith(key)


@pytest.fixture
def validator(task):
    schema = json_schema(task)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_accepts_what_loads(validator, study_text):
    document, _, _ = parse(study_text, file="study.yaml")
    assert [error.message for error in validator.iter_errors(document)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model: {layers: 2", "model: {layrs: 2"), ("layers: 2", "layers: two"), ("layers: 2", "layers: 0"),
        ("label: baseline", "lable: baseline"), ("seeds: [1, 2, 3]", "seeds: 3"), ("steps: 100", "stepz: 100"),
        ("baseline: base\n", "baselines: base\n"), ("{threads: 2}", "{thread: 2}"), ("question:", "questions:"),
        ("{val/loss: 1.5,", "{val/loss: low,"), ("laptop:\n    seeds", "laptop:\n    sedes"), ("name: toy-study\n", ""),
    ],
)  # fmt: skip
def test_the_schema_refuses_what_does_not_load(validator, study_text, problems_of, old, new):
    assert old in study_text
    text = study_text.replace(old, new, 1)
    document, _, _ = parse(text, file="study.yaml")
    assert not validator.is_valid(document)
    assert problems_of(text)
