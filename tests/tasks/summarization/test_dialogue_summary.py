"""The study dialogue-summary says what the log planned and what a sound design needs, in all its profiles."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ablab.study.differences import differences
from ablab.study.loading import load
from ablab.study.schema import Study
from ablab.tasks.summarization.audits import data_of, input_of, model_of

STUDY = Path(__file__).parents[3] / "studies" / "dialogue-summary.yaml"
LOG = (
    "mt5-xlsum-optimized", "mt5-xlsum-korean", "mt5-xlsum-ultimate", "eenzeenee-t5", "kobart", "high-learning-rate",
    "batch-optimization",
)  # fmt: skip
#: What each arm of the sound comparison differs in.
SOUND = {
    "rate": "pipeline.train.optimizer.learning_rate",
    "rank": "pipeline.train.parts",
    "length": "input.encoder_length",
    "prefix": "input.prefix",
    "schedule": "pipeline.train.schedule",
    "checkpoint-t5": "model.checkpoint",
    "checkpoint-mt5": "model.checkpoint",
    "whole": "pipeline.train.parts",
    "noise": "data.cleaning",
    "filler": "data.cleaning",
}
#: The generated dialogues hold no noise to take out.
PLANNED = {"full": (), "laptop": ("noise",)}
PROFILES = ("full", "laptop", "smoke")


@cache
def study(profile: str, quick: bool = False) -> Study:
    return load(STUDY, profile=profile, quick=quick)


def train_of(name: str, profile: str = "full") -> Any:
    return study(profile).experiments[name].stage("train").parameters


def test_the_full_profile_is_the_log() -> None:
    full = study("full").experiments
    xlsum, t5 = "csebuetnlp/mT5_multilingual_XLSum", "eenzeenee/t5-base-korean-summarization"
    kobart = "digit82/kobart-summarization"
    #      checkpoint, batch, rate, rank, encoder, beams, minutes
    plan = {
        "mt5-xlsum-optimized": (xlsum, 6, 6e-5, 48, 512, 4, 45),
        "mt5-xlsum-korean": (xlsum, 6, 9e-5, 64, 768, 4, 60),
        "mt5-xlsum-ultimate": (xlsum, 6, 1.2e-4, 96, 1024, 10, 90),
        "eenzeenee-t5": (t5, 12, 5e-5, 48, 512, 4, 60),
        "kobart": (kobart, 8, 6e-5, 48, 512, 8, 60),
        "high-learning-rate": (kobart, 8, 8e-5, 96, 512, 8, 60),
        "batch-optimization": (kobart, 32, 6e-5, 128, 512, 12, 90),
    }
    assert tuple(plan) == LOG
    for name, (checkpoint, batch, rate, rank, encoder, beams, minutes) in plan.items():
        arm, train = full[name], train_of(name)
        model, given = model_of(arm), input_of(arm)
        assert model is not None and given is not None
        assert model.checkpoint.name == checkpoint
        assert (train.batch, train.optimizer.learning_rate) == (batch, rate)
        assert (train.parts["all"].mode, train.parts["all"].rank) == ("qlora", rank)
        assert (given.encoder_length, given.decoder_length) == (encoder, 128)
        assert arm.stage("evaluate").parameters.decoding.beams == beams
        assert train.precision == "bf16" and arm.estimate == minutes * 60 and arm.seeds == (42,)
        assert train.epochs == 4
    korean = input_of(full["mt5-xlsum-korean"])
    assert korean is not None and korean.prefix == "한국어 대화를 요약하세요: "
    assert (
        train_of("kobart").gradient_checkpointing and train_of("high-learning-rate").schedule.name == "cosine-restarts"
    )
    assert (train_of("batch-optimization").micro_batch, train_of("batch-optimization").log_every) == (4, 10)
    assert sum(full[name].estimate or 0 for name in LOG) == (7 * 60 + 45) * 60
    assert study("full").compute.cooldown == 60


def test_target_bands_stand_beside_the_log() -> None:
    bands = {
        "mt5-xlsum-optimized": (15, 18), "mt5-xlsum-korean": (18, 22), "mt5-xlsum-ultimate": (22, 25),
        "eenzeenee-t5": (16, 20), "kobart": (18, 22), "high-learning-rate": (20, 24), "batch-optimization": (21, 25),
    }  # fmt: skip
    for name, (low, high) in bands.items():
        reference = study("full").references[name]
        assert reference.bands == {"test/rouge1_words": (low, high)} and "target band" in reference.note


@pytest.mark.parametrize("profile", PROFILES)
def test_a_sound_arm_differs_in_one_thing_and_decodes_as_the_baseline_does(profile: str) -> None:
    arms = study(profile).experiments
    for name, factor in SOUND.items():
        paths = differences(arms["base"], arms[name])
        assert paths and all(path == factor or path.startswith(f"{factor}.") for path in paths), (name, paths)
        assert arms[name].stage("evaluate").parameters == arms["base"].stage("evaluate").parameters
    for comparison in study(profile).comparisons:
        if comparison.baseline == "base":
            assert comparison.fail_controls == ("lead", "copy") and comparison.metric == "test/score"


@pytest.mark.parametrize("profile", ["full", "laptop"])
def test_sound_arms_have_three_paired_seeds(profile: str) -> None:
    loaded = study(profile)
    for name in ("base", *SOUND, "decoding", "llm"):
        assert loaded.experiments[name].seeds == loaded.seeds == (42, 123, 456)
        assert loaded.experiments[name].planned == (name in PLANNED[profile])


@pytest.mark.parametrize("profile", ["full", "laptop"])
def test_decoding_is_swept_on_validation_over_the_baselines_own_trainings(profile: str) -> None:
    loaded = study(profile)
    base, arm = loaded.experiments["base"], loaded.experiments["decoding"]
    for stage in base.stages:
        if stage.name != "evaluate":
            assert arm.stage(stage.name) == stage
    sweep = arm.stage("decode-sweep").parameters
    assert sweep.split == "val" and len(sweep.decodings()) == 9
    assert base.stage("evaluate").parameters.decoding in sweep.decodings()
    assert [need.stage for need in arm.stage("evaluate").needs][-1] == "decode-sweep"


def test_the_laptop_runs_all_seven_arms_of_the_log_without_a_network() -> None:
    laptop = study("laptop").experiments
    for name in (*LOG, "base", *SOUND, "decoding", "llm", "lead", "copy"):
        arm = laptop[name]
        data = data_of(arm)
        assert data is not None and data.source == "generated" and arm.planned == (name in PLANNED["laptop"])
        for stage in arm.stages:
            assert stage.spec.references is None or stage.spec.references(stage.sections, stage.parameters) == []
    classes = {model_of(laptop[name]).checkpoint.config["model_type"] for name in LOG}  # type: ignore[union-attr,index]
    assert classes == {"mt5", "t5", "bart"}


def test_laptop_keeps_the_proportions_of_the_log() -> None:
    for name in LOG:
        full, small = train_of(name), train_of(name, "laptop")
        assert small.batch == 2 * full.batch
        assert small.parts["all"].rank == pytest.approx(full.parts["all"].rank / 6, abs=0.5)
        ratio = small.optimizer.learning_rate / train_of("base", "laptop").optimizer.learning_rate
        assert ratio == pytest.approx(full.optimizer.learning_rate / 6e-5, rel=0.02)
        whole, part = input_of(study("full").experiments[name]), input_of(study("laptop").experiments[name])
        assert whole is not None and part is not None
        assert part.encoder_length == whole.encoder_length / 4


def test_no_frozen_part_of_a_laptop_arm_is_random() -> None:
    for name in (*LOG, "base", *SOUND):
        stages = {stage.name: stage for stage in study("laptop").experiments[name].stages}
        assert [need.stage for need in stages["train"].needs] == ["prepare", "pretrain"]
        assert "pretrain" in [need.stage for need in stages["evaluate"].needs]


def test_quick_is_one_epoch_each() -> None:
    for name in (*LOG, "base"):
        parameters = study("full", quick=True).experiments[name].stage("train").parameters
        assert (parameters.epochs, parameters.steps) == (1, None)
