"""The study tbi-mllm says what the log planned, where it departs from it, and runs its full system from end to end."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ablab.audit.engine import audit
from ablab.audit.training import training_stages
from ablab.lab import load as open_lab
from ablab.plan.planning import make_plan
from ablab.study.differences import differences
from ablab.study.loading import load
from ablab.study.problems import StudyError
from ablab.study.schema import Study
from ablab.tasks.vision_language.audits import DERIVED
from ablab.tasks.vision_language.config import Phase
from ablab.tasks.vision_language.sections import Model

STUDY = Path(__file__).parents[3] / "studies" / "tbi-mllm.yaml"
#: The log's table: 2D-RoPE, pyramid, dropping, connector, what trains or merges the decoder.
LOG: dict[str, tuple[bool, bool, bool, str, str]] = {
    "A0": (False, False, False, "pixel_shuffle", "none"),
    "A1": (False, False, False, "pixel_shuffle", "tune"),
    "B1": (True, False, False, "pixel_shuffle", "tune"),
    "B2": (True, True, False, "pixel_shuffle", "tune"),
    "B3": (True, True, True, "pixel_shuffle", "tune"),
    "C1": (False, False, False, "c_abstractor", "tune"),
    "C2": (False, True, False, "pyramid_c_abstractor", "tune"),
    "D1": (False, False, False, "pixel_shuffle", "lora"),
    "D2": (False, False, False, "pixel_shuffle", "join"),
    "D3": (False, False, False, "pixel_shuffle", "merge"),
    "D4": (False, False, False, "pixel_shuffle", "mole"),
    "E1": (True, True, False, "c_abstractor", "tune"),
    "E2": (True, True, True, "pyramid_c_abstractor", "tune"),
    "F1": (True, True, True, "pyramid_c_abstractor", "lora"),
    "F2": (True, True, True, "pyramid_c_abstractor", "vision"),
    "F3": (True, True, True, "pyramid_c_abstractor", "merge"),
    "F4": (True, True, True, "pyramid_c_abstractor", "mole"),
}
PROFILES = ("full", "laptop", "smoke")


@cache
def study(profile: str) -> Study:
    return load(STUDY, profile=profile)


@cache
def plan(profile: str) -> Any:
    return make_plan(study(profile), None)


def last_model(name: str, profile: str) -> Model:
    model = study(profile).experiments[name].stages[-1].sections["model"]
    assert isinstance(model, Model)
    return model


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", LOG)
def test_every_experiment_of_the_log_has_its_parts(name: str, profile: str) -> None:
    rotary, pyramid, dropping, connector, decoder = LOG[name]
    model = last_model(name, profile)
    assert (model.rotary_2d, model.pyramid is not None, model.connector.name) == (rotary, pyramid, connector)
    assert (model.pyramid is not None and model.pyramid.dropping is not None) is dropping
    assert (model.experts is not None) is (decoder == "mole")
    stages = {stage.name: stage for stage in study(profile).experiments[name].stages}
    if decoder in ("tune", "lora"):
        part = stages["tune"].parameters.parts.get("llm")
        assert (part is not None and part.mode == "lora") is (decoder == "lora")
    elif decoder != "none":
        assert decoder in stages and "tune" not in stages


def test_phases_are_those_of_the_log() -> None:
    arm = study("full").experiments["E2"]
    phases = {stage.name: stage.parameters for stage in arm.stages if isinstance(stage.parameters, Phase)}
    assert {name: (p.steps, p.batch, p.micro_batch, p.schedule.warmup) for name, p in phases.items()} == {
        "projector": (10_000, 256, 2, 500), "vision": (20_000, 128, 2, 1000), "tune": (50_000, 64, 2, 2000),
    }  # fmt: skip
    assert [p.optimizer.learning_rate for p in phases.values()] == [1e-3, 1e-4, 1e-5]
    assert [p.languages for p in phases.values()] == [{"en": x, "ko": round(1 - x, 1)} for x in (0.5, 0.7, 0.6)]
    tower = phases["vision"].parts["tower"]
    assert (tower.mode, tower.from_layer, tower.rank, tower.scale) == ("lora", 18, 32, 8)
    assert phases["vision"].parts["connector"].learning_rate == 5e-5
    for p in phases.values():
        assert (p.optimizer.betas, p.optimizer.weight_decay, p.clip, p.schedule.name) == (
            (0.9, 0.95),
            0.05,
            1,
            "cosine",
        )
        assert (p.checkpoints.every, p.checkpoints.best, p.precision) == (2500, 3, "bf16")
    merge = study("full").experiments["F4"].stage("merge").parameters
    assert merge.method == "dare-ties" and merge.base == "vision" and merge.normalize is None
    assert [(each.model, each.weight, each.density, each.trim) for each in merge.models] == [
        ("tune-en", 0.6, 0.1, None), ("tune-ko", 0.4, 0.1, None),
    ]  # fmt: skip
    assert last_model("F4", "full").experts.layers == (16, 20, 24, 28)  # type: ignore[union-attr]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_full_system_takes_the_phases_of_the_vision_pipeline(profile: str) -> None:
    made, seed = plan(profile), study(profile).seeds[0]
    for stage in ("projector", "vision"):
        keys = {made.run_of(name, seed, stage).key for name in ("E2", "F1", "F3", "F4")}
        assert len(keys) == 1
    assert made.run_of("F3", seed, "merge").key == made.run_of("F4", seed, "merge").key
    assert made.run_of("A1", seed, "tune").key != made.run_of("A1-phases", seed, "tune").key
    mole = made.run_of("F4", seed, "mole")
    assert {given.reference.partition("@")[0] for given in mole.inputs} >= {"merge", "tune-ko", "tune-en"}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_sound_comparison_trains_every_arm_alike(profile: str) -> None:
    loaded = study(profile)
    sound = next(each for each in loaded.comparisons if each.name == "sound")
    assert sound.fail_controls == ("blind",) and sound.baseline == "A1-phases"
    for name in sound.variants:
        paths = differences(loaded.experiments["A1-phases"], loaded.experiments[name])
        assert paths and all(path.startswith("model.") for path in paths), (name, paths)
    log = next(each for each in loaded.comparisons if each.name == "log")
    assert log.exploratory and log.baseline == "A1"


def test_the_log_s_order_is_priorities_and_its_gate_holds_the_rest() -> None:
    arms = study("full").experiments
    order = ("A0", "A1", "A1-phases", "E2", "F4", "B3")
    priorities = [arms[name].priority for name in order]
    assert priorities == sorted(priorities, reverse=True)
    gate = arms["A0"].gate
    assert gate is not None and (gate.metric, gate.within) == ("average/overall", 0.02)


def test_the_plan_tells_path_days_and_bytes_and_what_sharing_saves() -> None:
    from ablab.plan.describe import plan_summary

    made = plan("full")
    path = [f"{made.runs[key].experiment}.{made.runs[key].stage.name}" for key in made.critical_path]
    assert path == ["A0.prepare", "E2.projector", "E2.vision", "F4.tune-ko", "F4.merge", "F4.mole"]
    alone = made.device_seconds_without_sharing
    assert alone > made.device_seconds > 0 and made.bytes_left > 2**40
    share = 1 - made.device_seconds / alone
    (line,) = [line for line in plan_summary(made) if line.startswith("sharing runs saves")]
    assert f"which of the 840 that the study counts with nothing shared is {share * 840:.0f}" in line


def test_full_fine_tuning_fits_the_devices_named_and_not_those_of_the_log() -> None:
    assert not [each for each in audit(study("full")) if each.id == "memory-exceeds-device" and each.checked]
    small = load(STUDY, overrides=["compute.device.memory=40 GB"])
    found = {name for each in audit(small) if each.id == "memory-exceeds-device" and each.checked
             for name in each.subjects}  # fmt: skip
    assert {"A1", "E2", "D3", "D4", "F4"} <= found and not found & {"D1", "D2"}


def test_a_decoder_that_a_merge_leaves_is_forecast_as_its_base() -> None:
    loaded = study("full")
    told = {name: DERIVED["memory.forecast"](loaded, loaded.experiments[name]) for name in ("E2", "F2")}
    assert told["F2"].keys() == {"projector", "vision"}
    assert all(told["F2"][phase] == told["E2"][phase] for phase in told["F2"])
    size = DERIVED["checkpoint.bytes"]
    # Only E2 tunes the decoder.
    assert 0 < size(loaded, loaded.experiments["F2"]) < size(loaded, loaded.experiments["E2"])
    assert not [each for each in audit(loaded) if each.id == "memory-exceeds-device" and not each.checked]


def test_parents_are_scored_in_both_languages() -> None:
    for profile in PROFILES:
        loaded, made = study(profile), plan(profile)
        seed = loaded.seeds[0]
        for arm, parent in (("D3", "tune-ko"), ("D3", "tune-en"), ("F3", "tune-ko"), ("F3", "tune-en")):
            scored = made.run_of(f"{arm}-{parent[-2:]}", seed, loaded.experiments[arm].stages[-1].name)
            assert made.run_of(arm, seed, parent).key in {given.key for given in scored.inputs}


def test_experts_are_held_against_the_decoder_that_a_stage_builds() -> None:
    def found(*overrides: str) -> list[Any]:
        loaded = load(STUDY, profile="laptop", overrides=overrides)
        return [each for each in audit(loaded) if each.id == "expert-layer-beyond-model"]

    assert found() == []
    wrong = found("experiments.F4.pipeline.test.model.experts.layers=[1, 4]")
    assert wrong and all("has experts in layer 4, and its decoder has 4 layers" in each.message for each in wrong)


def test_stages_that_disagree_about_experts_are_named_before_they_run() -> None:
    def found(*overrides: str) -> list[Any]:
        loaded = load(STUDY, profile="laptop", overrides=overrides)
        return [each for each in audit(loaded) if each.id == "experts-differ"]

    assert found() == []
    assert found("experiments.D4.pipeline.test.model.experts.balance=0.5") == []
    forgotten, other = found("experiments.F4.pipeline.test.model.experts=null")
    assert forgotten.severity == "error" and (forgotten.subjects, other.subjects) == (("F4",), ("F4-equal",))
    assert "test of F4 builds a model without experts, and mole trained experts ko, en, shared" in forgotten.message
    assert found("experiments.D4.pipeline.mole.model.experts.layers=[1, 2]")


def test_an_expert_that_is_not_there_cannot_be_filled() -> None:
    with pytest.raises(StudyError, match="no expert 'fr' to fill; there are ko, en, shared"):
        load(STUDY, profile="laptop", overrides=["experiments.D4.pipeline.mole.take={experts.fr: tune-ko}"])


def test_sound_comparisons_count_as_many_samples_in_every_arm() -> None:
    for profile in ("full", "laptop"):
        loaded = study(profile)
        for name in ("sound", "sound-decoder", "sound-decoder-vision"):
            comparison = next(each for each in loaded.comparisons if each.name == name)
            seen = {
                arm: sum(stage.samples or 0 for stage in training_stages(loaded, loaded.experiments[arm]))
                for arm in comparison.arms
            }
            assert len(set(seen.values())) == 1 and min(seen.values()) > 0, (profile, name, seen)


def test_laptop_and_smoke_need_nothing_from_outside() -> None:
    for profile in ("laptop", "smoke"):
        assert not [each.message for each in audit(study(profile)) if each.severity == "error" and each.checked]
        for arm in study(profile).experiments.values():
            for stage in arm.stages:
                tell = stage.spec.references
                kinds = {each.kind for each in tell(stage.sections, stage.parameters)} if tell is not None else set()
                assert kinds <= {"bundled", "file"}, (profile, arm.name, stage.name)


def test_merge_and_experts_run_from_end_to_end(tmp_path: Path) -> None:
    lab = open_lab(STUDY, profile="smoke", store=tmp_path / "lab")
    summary = lab.run(only=["D4"], rewrite=None)
    assert not summary.failed and not summary.blocked
    store, made = lab.store, lab.plan(only=["D4"])
    run = {stage: made.run_of("D4", 42, stage) for stage in ("mole", "test")}
    trained = store.run(run["mole"].name).read_result()
    assert trained is not None
    # Both losses of the experts are logged on their own, and reach the routers.
    steps = [json.loads(line) for line in store.run(run["mole"].name).attempt(1).events.read_text().splitlines()]
    logged = [each for each in steps if each.get("e") == "step"]
    assert logged and all(each["experts-balance"] > 0 and each["experts-z"] > 0 for each in logged)
    assert trained.facts["experts.auxiliary_gradient"] > 0 and trained.facts["supervised.user"] == 0
    lab.report()
    wrong = {"auxiliary-loss-without-gradient", "expert-layer-beyond-model", "user-turns-supervised"}
    assert not {each.id for each in lab.check() if each.checked} & wrong
    html = lab.store.study_folder("tbi-mllm", "smoke").joinpath("report.html").read_text(encoding="utf-8")
    assert 'id="checklist"' in html and "shared" in html
    (sheet,) = store.run(run["test"].name).path.glob("artifacts/**/*.csv")
    with sheet.open(encoding="utf-8") as file:
        (row,) = list(csv.DictReader(file))
    assert row["experiment"] == "D4" and row["seed"] == "42"
