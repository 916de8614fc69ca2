"""What the task declares: names that stand in two places agree, mistakes are named, studies hold the log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from ablab.data.emoji_questions import SETS, Sizes
from ablab.data.templates import TEMPLATES as KNOWN
from ablab.study.loading import load, load_text
from ablab.study.problems import StudyError
from ablab.tasks.vision_language.config import SPEC, Evaluate, Phase
from ablab.tasks.vision_language.sections import (
    CONNECTORS,
    GENERATED_SETS,
    TEMPLATES,
    Connector,
    Data,
    Generated,
    Model,
    Template,
)

STUDY = Path(__file__).parents[3] / "studies" / "tinyllava.yaml"


def test_names_that_stand_in_two_places_agree() -> None:
    from ablab.models.connectors import _BUILT_IN

    assert GENERATED_SETS == SETS and set(CONNECTORS) == set(_BUILT_IN)
    assert {*TEMPLATES} - {"auto"} == set(KNOWN) and get_args(Template) == TEMPLATES
    assert set(Sizes.__dataclass_fields__) == set(Generated.model_fields) - {"seed"}


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, ablab.tasks.vision_language.config, ablab.tasks.vision_language.audits;"
        "print([m for m in ('torch', 'transformers', 'PIL', 'numpy.linalg') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Data(), "give `sets`"),
        (lambda: Data(sets={"val": {"files": ["a.json"]}}, generated={}), "sets val are there twice"),
        (lambda: Data(generated={}, validation="vall"), "'vall' is no set"),
        (lambda: Phase(mixture={"a": 1}, steps=1, parts={"towr": {"mode": "frozen"}}), "did you mean tower"),
        (lambda: Phase(mixture={"a": 0}, steps=1), "must be above 0"),
        (lambda: Connector(name="c_abstracter"), "did you mean c_abstractor"),
        (lambda: Connector(name="mlpx_gelu"), "unknown connector"),
        (lambda: Connector(name="c_abstractor", queries=15), "near are 9 and 16"),
        (lambda: Model(llm="a/b", tower="c/d", connector={"name": "pyramid_c_abstractor"}), "give model.pyramid"),
        (
            lambda: Model(llm="a/b", tower="c/d", pyramid={"dropping": {"rates": (0.5, 0.3, 1.5)}}),
            r"rates lie in \[0, 1\); found 1.5",
        ),
        (lambda: Evaluate(benchmarks={"gqqa": {"questions": "a.json"}}), "unknown benchmark 'gqqa'"),
    ],
)
def test_mistakes_are_named(make: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make()


@pytest.mark.parametrize("name", [*CONNECTORS, "mlp3x_gelu", "mine.py:Bridge"])
def test_every_connector_may_be_named(name: str) -> None:
    assert Connector(name=name).name == name


def test_null_takes_a_set_away() -> None:
    assert Data(sets={"a": {"files": ["a.json"]}, "b": None}).names == ("a",)
    assert Phase(mixture={"a": 1, "b": None}, steps=1).shares == {"a": 1}


def test_a_set_that_is_not_there_is_told_with_its_line() -> None:
    text = """
name: wrong
question: Does it load?
task: vision-language
seeds: [1]
experiments:
  A:
    data: {generated: {}}
    model: {llm: a/b, tower: c/d}
    pipeline:
      prepare: {}
      train: {steps: 1, mixture: {caption: 1}, take: {connector: B.train}, needs: [prepare]}
"""
    with pytest.raises(StudyError) as caught:
        load_text(text, path="wrong.yaml")
    said = str(caught.value)
    assert "unknown set 'caption'" in said and "there are captions" in said
    assert "connector is to come from B.train" in said


#: The log: language model, tower, layer unlocked in pretraining, share data in (pretraining, finetuning), rates, dtype.
TINY, STABLE, PHI, MINI = "TinyLlama", "stablelm", "phi-2", "MiniCPM"
CLIP, SIGLIP = "clip-vit-large-patch14-336", "siglip-so400m-patch14-384"
LOG: dict[str, tuple[str, str, int | None, tuple[bool, bool], float, str]] = {
    "E01": (TINY, CLIP, 12, (False, False), 2e-5, "fp16"),
    "E02": (TINY, CLIP, 18, (False, False), 2e-5, "fp16"),
    "E03": (TINY, CLIP, 21, (False, False), 2e-5, "fp16"),
    "E04": (TINY, CLIP, None, (False, False), 1e-3, "fp16"),
    "E05": (TINY, CLIP, 18, (True, True), 2e-5, "fp16"),
    "E06": (TINY, CLIP, 12, (True, True), 2e-5, "fp16"),
    "E07": (TINY, CLIP, 15, (True, True), 2e-5, "fp16"),
    "E09": (STABLE, CLIP, None, (False, False), 1e-3, "bf16"),
    "E10": (STABLE, CLIP, 12, (True, True), 2e-5, "bf16"),
    "E11": (STABLE, CLIP, None, (False, True), 1e-3, "bf16"),
    "E12": (MINI, CLIP, None, (False, False), 1e-3, "bf16"),
    "E13": (MINI, CLIP, 12, (True, True), 1e-3, "bf16"),
    "E14": (TINY, SIGLIP, None, (False, False), 1e-3, "fp16"),
    "E15": (PHI, SIGLIP, None, (False, False), 1e-3, "fp16"),
    "E16": (STABLE, SIGLIP, None, (False, False), 1e-3, "bf16"),
    "E17": (STABLE, SIGLIP, 12, (True, True), 1e-3, "bf16"),
    "E18": (TINY, SIGLIP, 12, (True, True), 1e-3, "fp16"),
    "E19": (PHI, SIGLIP, None, (False, False), 1e-3, "fp16"),
    "E20": (PHI, SIGLIP, 12, (True, True), 1e-3, "fp16"),
    "E21": (PHI, CLIP, None, (False, False), 1e-3, "fp16"),
    "E22": (PHI, CLIP, 12, (True, True), 1e-3, "fp16"),
}


@pytest.fixture(scope="module")
def study() -> Any:
    return load(STUDY)


@pytest.mark.parametrize("name", LOG)
def test_the_log_as_it_was(study: Any, name: str) -> None:
    llm, tower, layer, share, rate, dtype = LOG[name]
    arm = study.experiments[name]
    pretrain, finetune = arm.stage("pretrain"), arm.stage("finetune")
    model = finetune.sections["model"]
    assert llm.lower() in model.llm.name.lower() and tower in model.tower.name
    assert model.feature_layer == -2 and model.connector.name == "mlp2x_gelu"
    own = pretrain.parameters.parts["tower"]
    assert (own.from_layer if own.mode == "unlocked" else None) == layer
    assert pretrain.parameters.parts["llm"].mode == ("frozen" if layer is None else "full")
    found = tuple("share" in next(iter(stage.parameters.shares)) for stage in (pretrain, finetune))
    assert found == share
    assert pretrain.parameters.optimizer.learning_rate == rate and pretrain.parameters.batch == 256
    assert finetune.parameters.batch == 128 and finetune.parameters.parts["tower"].mode == "frozen"
    assert {stage.parameters.precision for stage in (pretrain, finetune)} == {dtype}
    taken = dict(pretrain.parameters.take)
    assert taken == ({"connector": "E04.pretrain"} if name in ("E05", "E06", "E07") else {})
    lora = finetune.parameters.parts["llm"]
    assert lora.mode == ("lora" if name == "E15" else "full")
    assert finetune.parameters.optimizer.learning_rate == (2e-4 if name == "E15" else 2e-5)
    if name == "E15":
        assert (lora.rank, lora.scale) == (128, 256)
        assert finetune.parameters.parts["connector"].learning_rate == 2e-5


def test_the_experiment_with_experts_goes_on_from_the_sixth(study: Any) -> None:
    arm = study.experiments["E08"]
    (finetune,) = [stage for stage in arm.stages if stage.kind == "train"]
    assert finetune.sections["model"].connector.name == "moe_mlp"
    assert dict(finetune.parameters.take) == {"llm": "E06.finetune", "tower": "E06.finetune"}


def test_figures_of_the_log_stand_beside(study: Any) -> None:
    figures = study.references
    assert set(figures) == {f"E{i:02}" for i in range(1, 23)} - {"E08", "E12", "E13", "E21", "E22"}
    assert figures["E20"].values["TextVQA"] == 59.13 and figures["E20"].values["LLaVA-W"] == 75.8
    assert figures["E19"].values["VizWiz"] == 38.45 and figures["E17"].values["MMVet"] == 32.6
    assert figures["E01"].values["POPE/popular/accuracy"] == 0.869


@pytest.mark.parametrize("profile", ["laptop", "smoke"])
def test_every_arm_of_the_log_can_be_started_without_a_network(profile: str) -> None:
    study = load(STUDY, profile=profile)
    for name in (f"E{i:02}" for i in range(1, 23)):
        for stage in study.experiments[name].stages:
            if stage.kind == "train":
                model = stage.sections["model"]
                assert model.llm.stage is not None and model.tower.stage is not None
                assert stage.parameters.precision == "fp32" and stage.parameters.steps is not None
    started = load(STUDY, profile=profile, overrides=["experiments.E06.planned=false"])
    assert not started.experiments["E06"].planned


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("korean", "higher"), ("korean/kind", "higher"), ("GQA", "higher"), ("val/loss", "lower"),
        ("train/experts-balance", "lower"), ("POPE/random/yes_ratio", "lower"), ("average/korean", "higher"),
    ],
)  # fmt: skip
def test_scores_of_ones_own_benchmarks_are_better_when_higher(name: str, direction: str) -> None:
    assert SPEC.metric(name).direction == direction


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("POPE/accuracy", "Mean accuracy of the three splits"),
        ("POPE/f1", "Mean F1"),
        ("POPE/random/f1", "F1 of the answer yes in one split"),
        ("POPE/random/accuracy", "right answers in one split"),
        ("MMBench-KO", "under every rotation"),
        ("MMBench-KO/first", "first order of the options alone"),
        ("MMBench-KO/logic", "under every rotation"),
    ],
)
def test_a_part_of_a_benchmark_is_defined_as_what_it_is(metric: str, said: str) -> None:
    assert said in SPEC.metric(metric).description
