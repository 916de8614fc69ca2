"""A cache of features in the plan: one for all arms that see alike, with the disk it will take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablab.contract.result import Result
from ablab.contract.task import Before
from ablab.plan.planning import make_plan
from ablab.store.layout import Store
from ablab.study.loading import load_text
from ablab.tasks.vision_language.config import Cache
from ablab.tasks.vision_language.sections import Data, Model
from ablab.tasks.vision_language.structure.feature_size import feature_bytes

TEXT = """
name: cached
question: Is one cache enough?
task: vision-language
seeds: [1]
defaults:
  data: {generated: {captions: 8, instruct: 12, val: 4, test: 4, things: 0.1}, tokenizer: {vocabulary: 400}}
  model: {llm: {stage: backbones.small}, tower: {stage: backbones.clip}}
  pipeline:
    prepare: {}
    cache: {needs: [prepare, backbones.clip], mixture: {captions: 1, val: 1}}
    train:
      needs: [prepare, cache, backbones.small, backbones.clip]
      mixture: {captions: 1}
      steps: 2
      parts: {tower: {mode: frozen}}
experiments:
  backbones:
    pipeline:
      cache: null
      train: null
      small: &llm
        kind: language
        steps: 2
        mixture: {texts: 1}
        architecture: {model_type: llama, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}
      large: {<<: *llm, steps: 3}
      clip:
        kind: tower
        steps: 2
        mixture: {captions: 1}
        architecture:
          {model_type: clip_vision_model, hidden_size: 32, num_hidden_layers: 3, num_attention_heads: 4,
           image_size: 48, patch_size: 16}
  A: {}
  linear: {like: A, model: {connector: {name: linear}}, data: {max_length: 99}}
  blind: {like: A, model: {sight: blind}}
  larger:
    like: A
    model: {llm: {stage: backbones.large}}
    pipeline: {train: {needs: [prepare, cache, backbones.large, backbones.clip]}}
  deeper: {like: A, model: {feature_layer: -1}}
  square: {like: A, data: {aspect: square}}
"""


@pytest.fixture(scope="module")
def study() -> Any:
    return load_text(TEXT, path="cached.yaml")


def caches(plan: Any) -> dict[str, Any]:
    return {name: run for run in plan.runs.values() if run.stage.kind == "cache" for name, _ in run.users}


def test_arms_that_see_alike_share_one_cache(study: Any) -> None:
    found = {name: run.key for name, run in caches(make_plan(study, None)).items()}
    assert found["A"] == found["linear"] == found["larger"] == found["blind"]
    assert len({found["A"], found["deeper"], found["square"]}) == 3


def test_the_plan_tells_the_disk_before_and_after_the_sets_are_there(study: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "lab")
    plan = make_plan(study, store)
    of_one = 9 * 32 * 4
    assert caches(plan)["A"].bytes == 12 * of_one
    (prepare,) = [run for run in plan.runs.values() if run.stage.kind == "prepare"]
    folder = store.run(prepare.name).create()
    folder.write_result(Result(key=prepare.key, facts={"images.captions": 5, "images.val": 2}))
    assert caches(make_plan(study, store))["A"].bytes == 7 * of_one


def test_towers_known_by_name_and_sets_of_ones_own() -> None:
    model = Model.model_validate({"llm": "a/b", "tower": "google/siglip-so400m-patch14-384"})
    files = {"captions": {"files": ["a.json"], "images": "here"}}
    data, cache = Data.model_validate({"sets": files}), Cache(mixture={"captions": 1}, dtype="fp16")
    assert feature_bytes(model, data, cache, ()) is None
    prepared = Before(kind="prepare", stage="prepare", parameters=cache, facts={"images.captions": 558_128})
    assert feature_bytes(model, data, cache, [prepared]) == 558_128 * 729 * 1152 * 2
    limited = Data.model_validate({"sets": {"captions": {**files["captions"], "limit": 10}}})
    assert feature_bytes(model, limited, cache, ()) == 10 * 729 * 1152 * 2
