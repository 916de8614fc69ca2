"""Audits of vision-language studies, from the study's text and from the facts of probes and results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablab.audit.engine import audit
from ablab.study.loading import load

TINYLLAVA = Path(__file__).parents[2] / "studies" / "tinyllava.yaml"
HEAD = """
name: seeing
question: Does it see?
task: vision-language
seeds: [1, 2, 3]
defaults:
  data: {generated: {captions: 8, instruct: 8, val: 4, test: 4}, tokenizer: {vocabulary: 400}}
  model:
    llm: {name: TinyLlama/TinyLlama-1.1B-Chat-v1.0}
    tower: {name: openai/clip-vit-large-patch14-336}
  pipeline:
    prepare: {}
    pretrain: {kind: train, template: plain, mixture: {captions: 1}, steps: 4, parts: {llm: {mode: frozen}, tower: {mode: frozen}}}
    finetune: {kind: train, needs: [prepare, pretrain], mixture: {instruct: 1}, steps: 4, parts: {tower: {mode: frozen}}}
"""  # noqa: E501 - one stage a line
ARMS = """
experiments:
  A: {}
  B: {pipeline: {finetune: %s}}
comparisons:
  - {name: main, baseline: A, variants: [B], factor: pipeline.finetune.parts, metric: train/loss, criterion: ratio <= 1}
"""


@pytest.fixture
def seeing(bench: Callable[..., Any]) -> Callable[..., Any]:
    def make(finetune: str = "{}", more: str = "") -> Any:
        return bench(HEAD + more + ARMS % finetune)

    return make


def ids(found: Any) -> set[str]:
    return {each.id for each in found.findings()}


def test_unlocking_layers_that_are_never_run(bench: Callable[..., Any], seeing: Callable[..., Any]) -> None:
    (found,) = seeing("{parts: {tower: {mode: unlocked, from_layer: 23}}}").findings("unlock-matches-nothing")
    assert found.severity == "error" and "after layer 22 of 0 to 23" in found.message
    sound = seeing("{parts: {tower: {mode: unlocked, from_layer: 12}}}")
    assert not sound.findings("unlock-matches-nothing")
    (note,) = sound.findings("last-layer-without-gradient")
    assert note.subjects == ("B",) and "1 of the 24 layers" in note.message
    last = HEAD.replace("  pipeline:", "    feature_layer: -1\n  pipeline:", 1)
    read = bench(last + ARMS % "{parts: {tower: {mode: unlocked, from_layer: 23}}}")
    assert not {"unlock-matches-nothing", "last-layer-without-gradient"} & ids(read)


def test_adapters_on_what_the_architecture_has_not(seeing: Callable[..., Any]) -> None:
    (found,) = seeing("{parts: {llm: {mode: lora, targets: [q_proj, fc1]}}}").findings("adapter-target-missing")
    assert "fc1, which llama has not" in found.message
    assert not seeing("{parts: {llm: {mode: lora, targets: [q_proj]}}}").findings("adapter-target-missing")
    assert seeing("{parts: {llm: {mode: lora, from_layer: 11}}}").findings("adapters-on-some-layers")


@pytest.mark.parametrize(("adapted", "told"), [(22 * 7, False), (22 * 7 - 1, True)])
def test_adapters_that_a_probe_found_on_some_layers_only(seeing: Callable[..., Any], adapted: int, told: bool) -> None:
    found = seeing("{parts: {llm: {mode: lora}}}")
    found.probe("B", {"parameters.table": [{"part": "llm", "adapted": adapted}]}, stage="finetune")
    messages = [each.message for each in found.findings("adapters-on-some-layers")]
    assert any("153 matrices over 22 layers" in message for message in messages) is told


@pytest.mark.parametrize(
    ("facts", "id", "severity"),
    [
        ({"supervised.none": 64}, "labels-all-masked", "error"),
        ({"supervised.none": 2}, "labels-all-masked", "warning"),
        ({"supervised.all": 64}, "labels-all-open", "error"),
        ({"supervised.user": 3}, "user-turns-supervised", "error"),
        ({"truncated.answers": 0.2, "truncated.samples": 9}, "answers-truncated", "warning"),
        ({"truncated.answers": 0.001, "truncated.samples": 1}, "answers-truncated", "note"),
        ({"skipped.captions": 3}, "rows-left-out", "note"),
    ],
)
def test_what_only_running_tells(seeing: Callable[..., Any], facts: dict[str, Any], id: str, severity: str) -> None:
    found = seeing("{clip: 2}")
    sound = {"samples.looked": 64, "supervised.none": 0, "supervised.all": 0, "truncated.answers": 0.0}
    found.probe("B", sound, stage="finetune")
    silent = {"labels-all-masked", "labels-all-open", "answers-truncated", "rows-left-out", "user-turns-supervised"}
    assert not silent & ids(found)
    found.probe("A", sound | facts, stage="finetune")
    (only,) = found.findings(id)
    assert only.severity == severity and only.subjects == ("A",)


def test_benchmarks_that_were_trained_on(bench: Callable[..., Any]) -> None:
    found = bench(HEAD + "    evaluate: {benchmarks: {gqa: {questions: 'prepared:gqa.json'}}}\n" + ARMS % "{clip: 2}")
    found.finish("A", stage="evaluate", facts={"overlap.images.gqa": 0, "benchmark.gqa.questions": 9})
    assert not {"evaluation-images-in-training", "evaluation-questions-in-training"} & ids(found)
    found.finish("B", stage="evaluate", facts={"overlap.images.gqa": 3, "overlap.questions.gqa": 2})
    (images,) = found.findings("evaluation-images-in-training")
    (questions,) = found.findings("evaluation-questions-in-training")
    assert images.severity == "error" and "3 images of gqa" in images.message
    assert questions.severity == "warning" and "2 questions of gqa" in questions.message


def test_parts_at_other_rates(bench: Callable[..., Any], seeing: Callable[..., Any]) -> None:
    rate = "{parts: {connector: {learning_rate: 2e-5}}}"
    assert not seeing(rate).findings("part-rates-differ")  # the parts are the factor
    narrow = (ARMS % rate).replace("factor: pipeline.finetune.parts", "factor: pipeline.finetune.parts.llm")
    (found,) = bench(HEAD + narrow).findings("part-rates-differ")
    assert "connector at 2e-05" in found.message


def test_a_loss_far_below_its_siblings_shows_its_batch(bench: Callable[..., Any]) -> None:
    arms = ARMS.replace("  B:", "  C: {pipeline: {finetune: {log_every: 3}}}\n  B:").replace("[B]", "[B, C]")
    found = bench(HEAD + arms.replace("log_every: 3", "clip: 2") % "{clip: 3}")
    for name, loss in (("A", 2.0), ("B", 0.4), ("C", 2.2)):
        found.finish(name, 1, "finetune", metrics={"train/loss": loss},
                     facts={"batch.text": f"batch of {name}", "supervised.preview": "yes"})  # fmt: skip
    (only,) = found.findings("loss-below-siblings")
    assert only.evidence["batch"] == "batch of B" and "0.4" in only.message


def test_losses_that_are_alike_are_left_alone(bench: Callable[..., Any]) -> None:
    arms = ARMS.replace("  B:", "  C: {pipeline: {finetune: {clip: 2}}}\n  B:").replace("[B]", "[B, C]")
    found = bench(HEAD + arms % "{clip: 3}")
    for name, loss in (("A", 2.0), ("B", 1.6), ("C", 2.2)):
        found.finish(name, 1, "finetune", metrics={"train/loss": loss})
    assert not found.findings("loss-below-siblings")


def test_a_part_that_is_random_and_stays_so(bench: Callable[..., Any], seeing: Callable[..., Any]) -> None:
    assert not seeing().findings("frozen-random-part")
    tower = "    tower: {config: {model_type: clip_vision_model, num_hidden_layers: 2}}"
    text = HEAD.replace("    tower: {name: openai/clip-vit-large-patch14-336}", tower)
    (a, b) = bench(text + ARMS % "{clip: 2}").findings("frozen-random-part")
    assert a.severity == "error" and {*a.subjects, *b.subjects} == {"A", "B"}
    trained = text.replace("steps: 4, parts: {tower: {mode: frozen}}", "steps: 4")
    assert not bench(trained + ARMS % "{clip: 2}").findings("frozen-random-part")
    connector = "{parts: {connector: {mode: frozen}}}"
    both = HEAD.replace("llm: {mode: frozen}, tower", "llm: {mode: frozen}, connector: {mode: frozen}, tower")
    found = bench(both + ARMS % connector).findings("frozen-random-part")
    assert {each.subjects for each in found} == {("B",)}


def test_asking_in_another_template(bench: Callable[..., Any]) -> None:
    evaluate = "    evaluate: {template: %s, benchmarks: {gqa: {questions: 'prepared:gqa.json'}}}\n"
    found = bench(HEAD + evaluate % "qwen2" + ARMS % "{}").findings("template-differs")
    assert {each.subjects for each in found} == {("A",), ("B",)}
    assert not bench(HEAD + evaluate % "auto" + ARMS % "{}").findings("template-differs")


@pytest.mark.parametrize(("heads", "told"), [(16, False), (512, True), (1024, True)])
def test_heads_that_rotary_positions_do_not_fit(bench: Callable[..., Any], heads: int, told: bool) -> None:
    tower = f"    rotary_2d: true\n    tower: {{config: {{model_type: clip_vision_model, hidden_size: 1024, num_attention_heads: {heads}}}}}"  # noqa: E501 - as a study writes it
    text = HEAD.replace("    tower: {name: openai/clip-vit-large-patch14-336}", tower)
    found = bench(text + ARMS % "{clip: 2}").findings("rotary-misfit")
    assert bool(found) is told and all(f"heads of {1024 // heads} dimensions" in each.message for each in found)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("pyramid: {layers: [8, 16, 24]}", None),
        ("pyramid: {layers: [8, 16, 25]}", "names layer 25 in pyramid.layers, and its tower takes 1 to 24"),
        ("pyramid: {layers: [0, 16, 24]}", "names layer 0 in pyramid.layers"),
        ("feature_layer: -2", None),
        ("feature_layer: 25", "names layer 25 in feature_layer"),
        ("language_drop: {before: [8, 21]}", None),
        (
            "language_drop: {before: [8, 22]}",
            "names layer 22 in language_drop.before, and its language model takes 1 to",
        ),
    ],
)
def test_layers_that_the_model_does_not_have(bench: Callable[..., Any], model: str, said: str | None) -> None:
    text = HEAD.replace("    tower: {name", f"    {model}\n    tower: {{name").replace(
        "mixture:", "packing: false, mixture:"
    )
    found = bench(text + ARMS % "{clip: 2}").findings("layer-beyond-model")
    assert [said in each.message for each in found] == ([] if said is None else [True, True])


def test_dropping_that_saves_the_language_model_nothing(bench: Callable[..., Any]) -> None:
    dropping = "    pyramid: {dropping: {rates: [0.5, 0.3, 0.1]}}\n"
    for model, told in (("", False), (dropping, True), (dropping + "    language_drop: {before: [8]}\n", False)):
        text = HEAD.replace("    tower: {name", f"{model}    tower: {{name").replace(
            "mixture:", "packing: false, mixture:"
        )
        found = bench(text + ARMS % "{clip: 2}").findings("dropping-saves-no-token")
        assert [(each.severity, each.subjects) for each in found] == ([("note", ("A", "B"))] if told else [])


@pytest.mark.parametrize(("least", "told"), [(35, False), (36, True)])
def test_a_rate_that_least_makes_idle(bench: Callable[..., Any], least: int, told: bool) -> None:
    """The tower of HEAD sees 24 x 24 patches, so its coarsest scale has 6 x 6."""
    dropping = f"    pyramid: {{dropping: {{rates: [0.5, 0.3, 0.1], least: {least}, block: 1}}}}\n"
    found = bench(HEAD.replace("    tower: {name", f"{dropping}    tower: {{name") + ARMS % "{clip: 2}")
    messages = [each.message for each in found.findings("drop-rate-idle")]
    wanted = ["scale 0.25 of A, B has 6 x 6 features and keeps 36 at least: its rate 0.5 drops nothing"]
    assert messages == (wanted if told else [])


def test_experts_in_a_decoder_that_a_name_or_a_stage_tells_of(bench: Callable[..., Any]) -> None:
    experts = "    experts: {layers: [3, %d]}\n    tower: {name"
    for layer, told in ((21, False), (22, True)):
        found = bench(HEAD.replace("    tower: {name", experts % layer) + ARMS % "{clip: 2}")
        messages = [each.message for each in found.findings("expert-layer-beyond-model")]
        assert any("22 layers, 0 to 21" in message for message in messages) is told, messages


def test_the_log_is_named_for_what_confounds_it() -> None:
    findings = audit(load(TINYLLAVA))
    identical = [set(each.subjects) for each in findings if each.id == "identical-references"]
    assert any({"E14", "E18"} <= subjects for subjects in identical)
    assert any({"E05", "E06"} <= subjects for subjects in identical)
    rates = {each.subjects[-1] for each in findings if each.id == "learning-rate-differs"}
    assert {"E01", "E02", "E03"} <= rates
    sound = [each for each in findings if each.where.startswith("comparisons[0]") and each.severity == "error"]
    assert sound == [] and "single-seed" in {each.id for each in findings}
