"""The studies that ship with Ablab load under every profile and follow their own JSON Schema."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from ablab.study.editors import json_schema
from ablab.study.loading import load
from ablab.study.yaml12 import parse

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


def test_there_are_built_in_studies():
    assert STUDIES


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_built_in_study_loads_under_every_profile(path):
    study = load(path)
    for profile in study.profiles:
        found = load(path, profile=profile)
        assert found.experiments
        for comparison in found.comparisons:
            assert set(comparison.arms) <= set(found.experiments)
    assert load(path, quick=True).experiments


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_built_in_study_follows_the_schema(path):
    document, _, _ = parse(path.read_text(encoding="utf-8"), file=str(path))
    schema = json_schema(load(path).task)
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []
