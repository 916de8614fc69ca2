"""A whole pipeline in this process: backbones, cached features, two phases, export, a question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ablab.contract.failure import EXIT_DONE
from ablab.contract.order import Input, Order, Resources
from ablab.contract.outlets import Ask
from ablab.contract.registry import find_task
from ablab.store.layout import RunFolder
from ablab.tasks.vision_language import outlets
from ablab.training.checkpoint import load_model as load_checkpoint
from ablab.training.inherit import adapted, training_parts
from ablab.training.retention import find
from ablab.worker.code import build_code
from ablab.worker.main import execute

SECTIONS = {
    "data": {
        "generated": {"captions": 12, "instruct": 12, "val": 4, "test": 4, "korean": 0, "things": 0.1},
        "tokenizer": {"vocabulary": 400},
        "max_length": 256,
        "validation": "val",
        "held_out": 2,
    },
    "model": {"llm": {"stage": "language"}, "tower": {"stage": "tower"}},
}
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LANGUAGE = {"model_type": "llama", **SHAPE, "max_position_embeddings": 512}
TOWER = {"model_type": "clip_vision_model", **SHAPE, "num_hidden_layers": 3, "image_size": 48, "patch_size": 16}
SHORT = {"steps": 2, "batch": 4, "precision": "fp32", "log_every": 1}
FROZEN = {"llm": {"mode": "frozen"}, "tower": {"mode": "frozen"}}
LORA = {"llm": {"mode": "lora", "rank": 4, "learning_rate": 0.01}, "tower": {"mode": "frozen"}}


class Bench:
    """Runs stages one after the other in folders of a store."""

    def __init__(self, root: Path) -> None:
        self.root, self.task = root, find_task("vision-language")
        self.inputs: dict[str, Input] = {}

    def run(self, name, kind, parameters, needs=(), *, code=EXIT_DONE):
        spec = self.task.stages[kind]
        folder = RunFolder(self.root / "runs" / f"{name}-0").create()
        sections = {key: self.task.sections[key].model_validate(SECTIONS[key]) for key in spec.sections}
        order = Order(
            key=name, stage=name, kind=kind, task="vision-language", study="s", profile="full", experiment="A", seed=1,
            sections={key: section.model_dump(mode="json") for key, section in sections.items()},
            parameters=spec.parameters.model_validate(parameters).model_dump(mode="json"),
            inputs=tuple(self.inputs[need] for need in needs), folder=str(folder.path), resources=Resources(threads=1),
            study_folder=str(self.root),
        )  # fmt: skip
        folder.write_order(order)
        ended = execute(folder.order_path)
        state = folder.read_state()
        assert ended == code, state
        self.inputs[name] = Input(reference=name, stage=name, kind=kind, key=name, path=str(folder.path))
        return folder


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    threads = torch.get_num_threads()
    made = Bench(tmp_path_factory.mktemp("store"))
    made.run("prepare", "prepare", {})
    made.run("language", "language", {"architecture": LANGUAGE, "mixture": {"texts": 1}, **SHORT}, ["prepare"])
    made.run("tower", "tower", {"architecture": TOWER, "mixture": {"captions": 1}, "least": 1, **SHORT}, ["prepare"])
    yield made
    torch.set_num_threads(threads)


BACKBONES = ["prepare", "language", "tower"]


@pytest.fixture(scope="module")
def finetuned(bench):
    captions = {"mixture": {"captions": 1}, "template": "plain", "parts": FROZEN, **SHORT}
    bench.run("pretrain", "train", captions, BACKBONES)
    return bench.run(
        "finetune", "train", {"mixture": {"instruct": 1}, "parts": LORA, **SHORT}, [*BACKBONES, "pretrain"]
    )


def trained(run):
    """Model of a finished run, built by its own code."""
    order = run.read_order()
    code = build_code(order)
    model = code.assembly.build(seed=1)
    from ablab.models.parts import apply_trainability

    apply_trainability(model, adapted(training_parts(run.path)))
    load_checkpoint(find(run.checkpoints, "last"), model)
    return code, model.eval()


def test_cached_features_train_as_pixels_do(bench):
    settings = {"mixture": {"captions": 1}, "template": "plain", "parts": FROZEN, **SHORT}
    bench.run("cache", "cache", {"mixture": {"captions": 1, "val": 1}, "batch": 5}, BACKBONES)
    pixels = bench.run("plain", "train", settings, BACKBONES)
    cached = bench.run("cached", "train", settings, [*BACKBONES, "cache"])
    facts = bench.inputs["cache"]
    result = RunFolder(Path(facts.path)).read_result()
    assert result.facts["cache.pictures"] == 16 and result.facts["cache.shape"] == [9, 32]
    assert result.facts["cache.bytes"] == 16 * 9 * 32 * 4
    mine, theirs = (run.read_result().metrics for run in (cached, pixels))
    assert mine == pytest.approx(theirs, rel=1e-5)


def test_features_of_another_layer_are_refused(bench):
    bench.run("cache-2", "cache", {"mixture": {"captions": 1, "val": 1}}, BACKBONES)
    settings = {"mixture": {"captions": 1}, "template": "plain", "parts": FROZEN, **SHORT}
    SECTIONS["model"]["feature_layer"] = -1
    try:
        refused = bench.run("other", "train", settings, [*BACKBONES, "cache-2"], code=1)
    finally:
        del SECTIONS["model"]["feature_layer"]
    message = refused.read_state().message
    assert "holds features of model of stage tower layer -2" in message and "this phase needs" in message


def test_only_what_trains_is_stored(finetuned):
    from safetensors import safe_open

    with safe_open(find(finetuned.checkpoints, "last") / "model.safetensors", framework="pt") as file:
        names = list(file.keys())
        referenced = json.loads(file.metadata()["ablab.referenced"])
    assert all(".lora_" in name or name.startswith("connector.") for name in names)
    assert {entry["source"] for entry in referenced.values()} == {"stage language (language)", "stage tower (tower)"}


def test_transformers_reads_pictures_and_words_as_we_do(bench, finetuned, tmp_path):
    """The whole way: image file and prompt through their processor and class, against our own framing and model."""
    from PIL import Image
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    from ablab.data.images import normalise

    run = bench.run("export", "export", {"folder": str(tmp_path / "out")}, ["finetune"])
    facts = run.read_result().facts
    assert facts["export.format"] == "llava" and facts["export.why"] == []
    assert "LlavaForConditionalGeneration" in facts["export.load"][0]
    assert (tmp_path / "out" / "adapters" / "llm" / "adapter_config.json").is_file()

    image = Image.effect_noise((90, 60), 60).convert("RGB")
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    processor = LlavaProcessor.from_pretrained(tmp_path / "out", backend="pil")
    given = processor(images=image, text="<image>\nwhat?", return_tensors="pt", add_special_tokens=False)
    code, model = trained(finetuned)
    pixels = normalise(torch.from_numpy(code.framing.frame(image))[None], code.framing)
    torch.testing.assert_close(given["pixel_values"], pixels, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        found = theirs(**given).logits
        expected = model(given["input_ids"], pixels=pixels)
    torch.testing.assert_close(found[..., : expected.size(-1)], expected, rtol=1e-4, atol=1e-4)


def test_a_question_is_answered_as_generation_answers_it(bench, finetuned, tmp_path):
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.effect_noise((48, 48), 60).convert("RGB").save(path)
    parameters = {"question": "What is it?", "images": [str(path)], "decoding": {"max_new_tokens": 4}}
    run = bench.run("ask", "ask", parameters, ["finetune"])
    answer = run.read_result().facts["answer"]
    code, model = trained(finetuned)
    from ablab.data.images import normalise

    encoder = code.assembly.encoder("auto", max_length=None)
    ids = torch.from_numpy(encoder.prompt("What is it?", images=1))
    pixels = normalise(torch.from_numpy(code.framing.frame(Image.open(path)))[None], code.framing)
    for _ in range(4):
        with torch.no_grad():
            best = model(ids[None], pixels=pixels)[0, -1].argmax()
        if int(best) == encoder.end:
            break
        ids = torch.cat([ids, best[None]])
    made = ids[len(encoder.prompt("What is it?", images=1)) :].tolist()
    assert answer == encoder.decode(made)


@pytest.mark.parametrize(("question", "language"), [("What is it?", "en"), ("이것은 무엇입니까?", "ko")])
def test_the_language_of_a_question_is_seen_in_its_letters(monkeypatch, question, language):
    asked = []
    monkeypatch.setattr(
        outlets, "Answerer", lambda code, model, request: lambda questions: [asked.append(questions[0].language) or "x"]
    )
    outlets.ask(None, None, Ask(question=question))
    assert asked == [language]
