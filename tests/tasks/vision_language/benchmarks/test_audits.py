"""What the text of a study tells of its benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ablab.audit.view import AuditView
from ablab.study.loading import load_text
from ablab.tasks.vision_language.benchmarks.audits import AUDITS
from ablab.tasks.vision_language.benchmarks.catalogue import named_in

TINY: dict[str, Any] = {
    "name": "tiny",
    "task": "vision-language",
    "defaults": {
        "data": {"sets": {"instruct": {"files": ["instruct.json"]}}},
        "model": {"llm": "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tower": "openai/clip-vit-large-patch14-336"},
        "pipeline": {
            "prepare": {},
            "train": {"mixture": {"instruct": 1}, "epochs": 1},
            "evaluate": {
                "benchmarks": {"gqa": {"questions": "gqa.json"}, "mmstar": {"questions": "mmstar.parquet"}},
            },
        },
    },
    "experiments": {"A": {}, "B": {"model": {"feature_layer": -1}}},
    "comparisons": [
        {
            "baseline": "A", "variants": ["B"], "factor": "model.feature_layer", "metric": "average/english",
            "criterion": "difference >= 0",
        }
    ],
}  # fmt: skip


def findings(change: dict[str, Any]) -> dict[str, Any]:
    """Return findings by id of the tiny study with the default blocks or arms of `change` merged in."""

    def merged(one: Any, other: Any) -> Any:
        if isinstance(one, dict) and isinstance(other, dict):
            return {key: merged(one.get(key), other[key]) if key in other else one[key] for key in {**one, **other}}
        return other

    text = yaml.safe_dump(merged(TINY, change), sort_keys=False)
    view = AuditView(load_text(text, path=Path("tiny.yaml")))
    return {one.id: one for audit in AUDITS for one in audit(view)}


def test_a_sound_study_has_no_finding() -> None:
    assert findings({}) == {}


@pytest.mark.parametrize("file", ["k-dtcbench_train.json", "data/K_DTCBench/15k.jsonl", "mathvista-train.json"])
def test_training_on_a_benchmark_that_has_no_train_split_is_an_error(file: str) -> None:
    found = findings({"defaults": {"data": {"sets": {"instruct": {"files": [file]}}}}})["benchmark-in-training"]
    assert found.severity == "error" and "no train split" in found.message and file in found.message


@pytest.mark.parametrize("file", ["docvqa_train.json", "captions.json", "squad.json"])
def test_training_on_the_train_split_of_a_benchmark_is_none(file: str) -> None:
    assert findings({"defaults": {"data": {"sets": {"instruct": {"files": [file]}}}}}) == {}


def test_a_set_that_no_phase_reads_is_no_training_data() -> None:
    assert findings({"defaults": {"data": {"sets": {"k-dtcbench": {"files": ["test.json"]}}}}}) == {}


def test_judged_benchmarks_without_a_judge_are_named_once() -> None:
    evaluate: dict[str, Any] = {"benchmarks": {"mmvet": {"questions": "mm-vet.json"}}}
    change: dict[str, Any] = {"defaults": {"pipeline": {"evaluate": evaluate}}}
    by_gqa = {"comparisons": [TINY["comparisons"][0] | {"metric": "GQA"}]}
    found = findings(change | by_gqa)["judge-missing"]
    assert found.severity == "warning" and "MMVet: a judge marks the answers" in found.message
    # The mean that is compared is missing with its benchmark.
    found = findings(change)["judge-missing"]
    assert found.severity == "error" and "average/english with them" in found.message
    evaluate["judge"] = {"model": "judge-1"}
    assert findings(change) == {}


def test_a_mean_over_other_benchmarks_compares_with_nothing() -> None:
    fewer = {"pipeline": {"evaluate": {"benchmarks": {"gqa": {"questions": "gqa.json", "limit": 100}}}}}
    found = findings({"experiments": {"B": fewer}})["benchmarks-differ"]
    assert found.severity == "error" and "gqa" in found.message and found.subjects == ("A", "B")


@pytest.mark.parametrize(
    ("text", "benchmark"),
    [
        ("NCSOFT/K-DTCBench", "k-dtcbench"),
        ("eval/MMBench_DEV_KO.tsv", None),
        ("mmbench-ko.tsv", "mmbench-ko"),
        ("textvqa_train.json", "textvqa"),
        ("questions.json", None),
        ("squad-v2.json", None),
        ("gqa.json", None),
    ],
)
def test_the_name_of_a_benchmark_is_found_in_other_names(text: str, benchmark: str | None) -> None:
    assert named_in(text) == benchmark
