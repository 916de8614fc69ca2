"""The study gpt-oelm says what the log did and what a sound design needs, in all its profiles."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from ablab.study.differences import differences
from ablab.study.loading import load
from ablab.study.schema import Study
from ablab.tasks.language_modeling.audits import model_of, parameter_count

STUDY = Path(__file__).parents[3] / "studies" / "gpt-oelm.yaml"
LOG = [f"GPT-0{number}" for number in range(1, 8)]
#: Arms of the sound comparison (query_key, scale, unfrozen layers) beside its control, blind.
SOUND = {
    "trained": ("trained", None, 0),
    "trained-orthogonal": ("trained-orthogonal", None, 0),
    "frozen-orthogonal": ("frozen-orthogonal", None, 0),
    "frozen-global": ("frozen-global-orthogonal", None, 0),
    "frozen-normal": ("frozen-normal", None, 0),
    "frozen-small": ("frozen-normal", 0.02, 0),
    "identity-query": ("identity-query", None, 0),
    "partly-unfrozen": ("frozen-orthogonal", None, 2),
}


@cache
def study(profile: str) -> Study:
    return load(STUDY, profile=profile)


def test_the_full_profile_is_the_log() -> None:
    full = study("full")
    steps = {"GPT-01": 100_000, "GPT-02": 100_000, "GPT-03": 100_000, "GPT-04": 150_000, "GPT-05": 150_000,
             "GPT-06": 200_000, "GPT-07": 200_000}  # fmt: skip
    for name in LOG:
        arm = full.experiments[name]
        model, train = model_of(arm), arm.stage("train").parameters
        assert model is not None and parameter_count(model, 50257) == 44_896_768
        frozen = name in {"GPT-02", "GPT-03", "GPT-05", "GPT-07"}
        assert model.attention.query_key.startswith("frozen") is frozen
        assert train.optimizer.learning_rate == (1e-3 if frozen else 3e-4)
        assert (train.steps, train.batch, train.clip) == (steps[name], 8, 1.0)
        assert (train.optimizer.betas, train.optimizer.weight_decay) == ((0.9, 0.999), 0.01)
        assert train.optimizer.decay == "all"
        assert (train.schedule.name, train.schedule.warmup, train.schedule.final) == ("cosine", 1000, 0)
        assert arm.seeds == (42,)
    assert full.experiments["GPT-05"].stage("prepare").sections["data"].max_tokens == 99_100_000  # type: ignore[attr-defined]
    values = {name: full.references[name].values["val/perplexity"] for name in LOG[:5]}
    assert values == {"GPT-01": 4.27, "GPT-02": 4.69, "GPT-03": 4.97, "GPT-04": 47.24, "GPT-05": 54.29}


@pytest.mark.parametrize("profile", ["full", "laptop", "smoke"])
def test_the_sound_comparison_varies_one_factor(profile: str) -> None:
    loaded = study(profile)
    sound = next(comparison for comparison in loaded.comparisons if comparison.name == "sound")
    assert sound.baseline == "trained"
    assert set(sound.arms) == {*SOUND, "blind"}
    assert (sound.fail_controls, sound.at, sound.also) == (("blind",), "last", ())
    assert sound.metric == "test/perplexity"
    for arm in sound.arms[1:]:
        paths = differences(loaded.experiments["trained"], loaded.experiments[arm])
        assert paths and all(path.startswith("model.attention") for path in paths), (arm, paths)


@pytest.mark.parametrize("profile", ["full", "laptop"])
def test_every_arm_of_a_sound_version_is_there(profile: str) -> None:
    loaded = study(profile)
    for name, (query_key, scale, unfrozen) in SOUND.items():
        arm = loaded.experiments[name]
        model = model_of(arm)
        assert model is not None and model.attention.query_key == query_key
        assert (model.attention.scale is None) is (scale is None)
        assert bool(model.attention.unfrozen_layers) is bool(unfrozen)
        assert arm.seeds == loaded.seeds and len(arm.seeds) >= 3 and not arm.planned
    model = model_of(loaded.experiments["blind"])
    assert model is not None and model.attention.output == "zero"


def test_only_the_full_profile_sweeps() -> None:
    for profile, sweeps in (("full", True), ("laptop", False), ("smoke", False)):
        kinds = {stage.kind for arm in study(profile).experiments.values() for stage in arm.stages}
        assert ("select" in kinds) is sweeps


def test_laptop_keeps_the_proportions_of_the_log() -> None:
    """Scales of the logits, ratio of the rates and epochs of the small data are those of the original."""
    laptop = study("laptop").experiments
    rates = [laptop[name].stage("train").parameters.optimizer.learning_rate for name in ("GPT-01", "GPT-02")]
    assert rates[1] / rates[0] == pytest.approx(1e-3 / 3e-4, rel=1e-6)
    small = model_of(laptop["frozen-small"])
    assert small is not None and small.attention.scale is not None
    assert small.attention.scale**2 * small.width == pytest.approx(0.02**2 * 512, rel=0.02)
    arm = laptop["GPT-05"]
    train, data = arm.stage("train").parameters, arm.stage("prepare").sections["data"]
    epochs = train.steps * train.batch * small.context / data.max_tokens  # type: ignore[attr-defined]
    assert epochs == pytest.approx(6.2, abs=0.1)
    assert [name for name, arm in laptop.items() if arm.planned] == ["GPT-06", "GPT-07"]


def test_laptop_and_smoke_need_no_network() -> None:
    for profile in ("laptop", "smoke"):
        sources = {
            arm.stage("prepare").sections["data"].source  # type: ignore[attr-defined]
            for arm in study(profile).experiments.values()
            if not arm.planned
        }
        assert sources <= {"austen", "wordnet"}
