"""The JSON Schema of a study file of one task, for editors that complete and check YAML (draft 2020-12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ablab.contract.kinds import STAGE_KEYS, stage_kinds
from ablab.contract.task import TaskSpec
from ablab.study.document import NOT_IN_PROFILE, ComparisonEntry, ExperimentEntry, MatrixEntry, StudyFile

DRAFT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def json_schema(task: TaskSpec) -> Schema:
    """Return the JSON Schema of study files of a task.

    Blocks may be partial everywhere (an experiment completes the defaults), so nothing inside sections and stages is
    required; the loader tells what is missing in the end.
    """
    kinds = stage_kinds(task)
    models: list[type[BaseModel]] = [StudyFile, ExperimentEntry, MatrixEntry, ComparisonEntry]
    models += [*task.sections.values(), *(spec.parameters for spec in kinds.values())]
    unique = list(dict.fromkeys(models))
    references, shared = models_json_schema([(model, "validation") for model in unique], by_alias=True)
    place = {model: references[model, "validation"] for model in unique}
    definitions: Schema = dict(shared.get("$defs", {}))
    for name in definitions:
        if name not in {_name(place[model]) for model in (ComparisonEntry, MatrixEntry, StudyFile)}:
            definitions[name] = _partial(definitions[name])
    sections = {name: _nullable(place[model]) for name, model in task.sections.items()}
    definitions["stage"] = _stage(
        task, sections, {kind: place[spec.parameters] for kind, spec in kinds.items()}, definitions
    )
    definitions["experiment"] = _extended(definitions[_name(place[ExperimentEntry])], _content(sections))
    definitions["configuration"] = {"type": "object", "properties": _content(sections), "additionalProperties": False}
    top = dict(definitions.pop(_name(place[StudyFile])))
    top["properties"] = {**top["properties"], **_top(place)}
    profile = {**top, "required": []}
    profile["properties"] = {key: value for key, value in top["properties"].items() if key not in NOT_IN_PROFILE}
    definitions["profile"] = _partial(
        {
            **profile,
            "properties": {key: {"anyOf": [value, {"type": "null"}]} for key, value in profile["properties"].items()},
        }
    )
    top["title"] = f"Ablab study ({task.name})"
    return {"$schema": DRAFT, **top, "$defs": definitions}


def _top(place: Mapping[type[BaseModel], Any]) -> Schema:
    """Return the schemas of the top-level keys that the loader types only after merging."""
    comparison, matrix = place[ComparisonEntry], place[MatrixEntry]
    reference = {
        "type": ["object", "null"],
        "properties": {"source": {"type": "string"}, "note": {"type": "string"}},
        "additionalProperties": {
            "anyOf": [
                {"type": "number"},
                {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
            ]
        },
    }
    return {
        "defaults": _nullable({"$ref": "#/$defs/configuration"}),
        "experiments": _mapping(_nullable({"$ref": "#/$defs/experiment"})),
        "matrix": {"anyOf": [matrix, {"type": "array", "items": matrix}, {"type": "null"}]},
        "comparisons": {"anyOf": [comparison, {"type": "array", "items": comparison}, {"type": "null"}]},
        "references": _mapping(reference),
        "profiles": _mapping(_nullable({"$ref": "#/$defs/profile"})),
    }


def _stage(task: TaskSpec, sections: Schema, parameters: Mapping[str, Any], definitions: Schema) -> Schema:
    """Return the schema of a stage: what any kind may hold; editors complete from all of them."""
    properties: Schema = {}
    for reference in parameters.values():
        for key, value in definitions[_name(reference)].get("properties", {}).items():
            known = properties.get(key)
            properties[key] = value if known in (None, value) else {"anyOf": [known, value]}
    properties |= sections
    properties["kind"] = {"enum": list(parameters), "description": "Stage kind; the stage's name when not given."}
    need = {"type": "string", "pattern": r"^([^@]+\.)?[A-Za-z_][\w-]*(@(last|best))?$"}
    properties["needs"] = {"anyOf": [need, {"type": "array", "items": need}, {"type": "null"}]}
    assert set(STAGE_KEYS) <= set(properties)
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False, "title": task.title}


def _content(sections: Schema) -> Schema:
    return {**sections, "pipeline": _mapping({"$ref": "#/$defs/stage"})}


def _extended(schema: Schema, properties: Schema) -> Schema:
    return {**schema, "properties": {**schema["properties"], **properties}}


def _partial(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "required"}


def _nullable(schema: Any) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _mapping(values: Schema) -> Schema:
    return {"type": ["object", "null"], "additionalProperties": values}


def _name(reference: Mapping[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
