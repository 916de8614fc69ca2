"""The study m2kr-retrieval says what the log did and what a sound design needs, in all its profiles."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from ablab.study.differences import differences
from ablab.study.loading import load
from ablab.study.schema import Study
from ablab.tasks.retrieval.audits import section_of
from ablab.tasks.retrieval.sections import Data, Loss, Model, Taps, Towers

STUDY = Path(__file__).parents[3] / "studies" / "m2kr-retrieval.yaml"
LOG = {"OVEN": (1.5284, 0.8538), "INFOSEEK": (1.7455, 0.8151), "EVQA": (1.6716, 0.8046), "OKVQA": (3.6432, 0.4884)}


@cache
def study(profile: str) -> Study:
    return load(STUDY, profile=profile)


def test_the_full_profile_is_the_log() -> None:
    full = study("full")
    for name, (loss, recall) in LOG.items():
        arm = full.experiments[name]
        train, taps = arm.stage("train").parameters, section_of(arm, "model", Model).taps
        assert (train.epochs, train.batch, train.precision) == (1, 64, "bf16")
        assert train.optimizer.learning_rate == 2e-5 and arm.seeds == (42,)
        # Text layer 11 of a tower of nine layers does not exist.
        assert taps == Taps(text=(2, 5, 8), vision=(3, 7, 11))
        towers, objective = section_of(arm, "towers", Towers), section_of(arm, "loss", Loss)
        assert towers.pair.name == "wkcn/TinyCLIP-ViT-61M-32-Text-29M-LAION400M" and towers.depths == (9, 12)
        assert (objective.temperature, objective.learnable, objective.score) == (1.0, False, "sum")
        assert full.references[name].values == {"train/loss": loss, "train/r_at_1": recall}
    assert section_of(full.experiments["INFOSEEK"], "data", Data).rows == 76_265
    assert section_of(full.experiments["OKVQA"], "data", Data).both_sides
    steps = {"EVQA-VAL": "val", "EVQA-TEST": "test"}
    assert {n: full.experiments[n].stage("train").parameters.split for n in steps} == steps
    assert section_of(full.experiments["MOBILECLIP"], "towers", Towers).open_clip == "MobileCLIP-S1"


@pytest.mark.parametrize("profile", ["full", "laptop", "smoke"])
def test_arms_of_a_comparison_differ_in_its_factor_alone(profile: str) -> None:
    loaded = study(profile)
    for comparison in loaded.comparisons:
        for arm in comparison.variants:
            paths = differences(loaded.experiments[comparison.baseline], loaded.experiments[arm])
            assert paths, (comparison.name, arm)
            assert all(path.startswith(tuple(comparison.factor)) for path in paths), (comparison.name, arm, paths)
        # Of questions that only the picture answers, words alone are blind: the baseline is what a control would be.
        assert bool(comparison.fail_controls) == (comparison.name != "pictures")
        assert not comparison.also


def test_the_laptop_profile_is_sound_and_needs_no_network() -> None:
    laptop = study("laptop")
    run = {name: arm for name, arm in laptop.experiments.items() if not arm.planned}
    assert {"fused", "taps-last", "taps-all", "pooled", "query-text", "query-image", "passage-text", "passage-image",
            "fixed-temperature", "bm25", "by-id", "as-negatives", "distinct", "blind"} <= run.keys()  # fmt: skip
    for name, arm in run.items():
        assert section_of(arm, "data", Data).source == "mini-m2kr"
        towers = section_of(arm, "towers", Towers)
        if towers is None:
            assert name == "bm25"
            continue
        assert towers.random and any(stage.kind == "pretrain" for stage in arm.stages)
    for comparison in laptop.comparisons:
        assert all((laptop.experiments[arm].seeds or laptop.seeds) == (42, 123, 456) for arm in comparison.arms)


def test_towers_of_the_laptop_profile_can_be_built() -> None:
    from ablab.models.hub import load_model

    laptop = study("laptop")
    for name in ("fused", "MOBILECLIP"):
        towers = section_of(laptop.experiments[name], "towers", Towers)
        text, vision = load_model(towers.text, kind="text"), load_model(towers.vision, kind="vision")
        assert towers.depths == (len(text.encoder.layers), 4)
        assert len(getattr(vision.encoder, "stages", None) or vision.encoder.layers) == 4
