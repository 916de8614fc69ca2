"""Phases through the real worker: resume, splits of a batch, parts from elsewhere, a blind arm, benchmarks asked."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ablab.contract.failure import EXIT_DONE, DataError
from ablab.contract.order import Input, Order, Resources
from ablab.contract.registry import find_task
from ablab.store.layout import RunFolder
from ablab.training.checkpoint import name_of
from ablab.training.retention import INDEX, find
from ablab.training.weights import load_tensors
from ablab.worker.code import build_code
from ablab.worker.main import execute

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
DATA = {
    "generated": {"captions": 16, "instruct": 24, "val": 4, "test": 4, "things": 0.15},
    "tokenizer": {"vocabulary": 400},
    "validation": "val",
    "system": "",
    "max_length": 400,
}
MODEL = {"llm": {"stage": "language"}, "tower": {"stage": "tower"}}
SHORT = {"steps": 4, "batch": 4, "precision": "fp32", "log_every": 1, "optimizer": {"learning_rate": 1e-2}}
SEES = {"llm": {"mode": "frozen"}, "tower": {"mode": "frozen"}}
CAPTIONS = {"mixture": {"captions": 1}, "template": "plain", "parts": SEES, **SHORT}
BACKBONES = ("prepare", "language", "tower")


class Bench:
    """Stages one after the other in folders of a store."""

    def __init__(self, root: Path) -> None:
        self.root, self.task, self.inputs = root, find_task("vision-language"), dict[str, Input]()

    def order(self, name: str, kind: str, parameters: Any, needs: Any, model: Any, resources: Resources) -> RunFolder:
        spec = self.task.stages[kind]
        folder = RunFolder(self.root / "runs" / f"{name}-0").create()
        given = {"data": DATA, "model": MODEL | (model or {})}
        sections = {key: self.task.sections[key].model_validate(given[key]) for key in spec.sections}
        order = Order(
            key=name, stage=name, kind=kind, task="vision-language", study="s", profile="full", experiment="A", seed=1,
            sections={key: section.model_dump(mode="json") for key, section in sections.items()},
            parameters=spec.parameters.model_validate(parameters).model_dump(mode="json"),
            inputs=tuple(self.inputs[need] for need in needs), folder=str(folder.path), resources=resources,
            study_folder=str(self.root),
        )  # fmt: skip
        folder.write_order(order)
        self.inputs[name] = Input(reference=name, stage=name, kind=kind, key=name, path=str(folder.path))
        return folder

    def run(
        self, name: str, kind: str, parameters: Any, needs: Any = (), *, model: Any = None, micro: int | None = None
    ) -> RunFolder:
        folder = self.order(name, kind, parameters, needs, model, Resources(threads=1, micro_batch=micro))
        assert execute(folder.order_path) == EXIT_DONE, folder.read_state()
        return folder

    def resumed(self, whole: RunFolder, step: int) -> RunFolder:
        cut = RunFolder(whole.path.parent / "cut-0")
        shutil.copytree(whole.path, cut.path)
        for path in (cut.result_path, cut.state_path, cut.checkpoints / INDEX):
            path.unlink(missing_ok=True)
        for other in cut.checkpoints.glob("step-*"):
            if other.name != name_of(step):
                shutil.rmtree(other)
        order = whole.read_order()
        assert order is not None
        cut.write_order(order.model_copy(update={"folder": str(cut.path), "attempt": 2}))
        assert execute(cut.order_path) == EXIT_DONE
        return cut


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_tensors(find(run.checkpoints, "last") / "model.safetensors")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    threads = torch.get_num_threads()
    made = Bench(tmp_path_factory.mktemp("store"))
    made.run("prepare", "prepare", {})
    language = {"model_type": "llama", **SHAPE, "max_position_embeddings": 512}
    made.run("language", "language", {"architecture": language, "mixture": {"texts": 1}, **SHORT}, ["prepare"])
    tower = {"model_type": "siglip_vision_model", **SHAPE, "image_size": 48, "patch_size": 12}
    made.run("tower", "tower", {"architecture": tower, "mixture": {"captions": 1}, "least": 1, **SHORT}, ["prepare"])
    made.run("pretrain", "train", CAPTIONS, BACKBONES)
    yield made
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finetuned(bench: Bench) -> RunFolder:
    settings = {"mixture": {"instruct": 1}, **SHORT, "checkpoints": {"every": 2, "keep_every": 2}}
    return bench.run("finetune", "train", settings, ["prepare", "pretrain"])


#: Losses of validation and of a probe, and a digest of the rows that are prepared: when one of these changes, the
#: version of its stage kind has to rise.
GOLDEN = {"language": 5.57630, "tower": 8.20981, "pretrain": 5.83578, "finetune": 4.68932, "probe": 4.68932}
PREPARED = "0acfe9b524c3343e"


def test_fixed_inputs_give_fixed_results(bench: Bench, finetuned: RunFolder) -> None:
    bench.run("golden-probe", "probe", {"rows": 4, "batch": 2}, ["prepare", "finetune"])
    found: dict[str, float] = {}
    for name in ("language", "tower", "pretrain", "finetune"):
        result = RunFolder(bench.inputs[name].path).read_result()
        assert result is not None
        found[name] = result.metrics["val/loss"]
    probed = RunFolder(bench.inputs["golden-probe"].path).read_result()
    assert probed is not None
    found["probe"] = probed.facts["probe.loss"]
    rows = hashlib.sha256()
    for name in ("captions", "captions-share", "instruct", "instruct-share", "texts", "val"):
        rows.update((Path(bench.inputs["prepare"].path) / "artifacts/sets" / name / "rows.jsonl").read_bytes())
    assert rows.hexdigest()[:16] == PREPARED
    assert found == pytest.approx(GOLDEN, rel=1e-3)


def test_a_resumed_phase_is_the_undisturbed_one_bit_for_bit(bench: Bench, finetuned: RunFolder) -> None:
    mine, theirs = weights(bench.resumed(finetuned, 2)), weights(finetuned)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("change", [{"micro": 1}, {"packing": False}, {"row_tokens": 64}])
def test_how_a_batch_is_cut_and_packed_changes_nothing(
    bench: Bench, finetuned: RunFolder, change: dict[str, Any]
) -> None:
    micro = change.get("micro")
    settings = {"mixture": {"instruct": 1}, **SHORT, **({} if micro else change)}
    other = bench.run(f"other-{next(iter(change))}", "train", settings, ["prepare", "pretrain"], micro=micro)
    mine, theirs = weights(other), weights(finetuned)
    for name, tensor in theirs.items():
        assert torch.allclose(mine[name], tensor, rtol=1e-3, atol=1e-4), name


def test_a_part_is_taken_from_where_the_study_says(bench: Bench) -> None:
    frozen = {**SEES, "llm": {"mode": "full"}, "connector": {"mode": "frozen"}}
    taken = bench.run(
        "taken",
        "train",
        {**CAPTIONS, "parts": frozen, "take": {"connector": "pretrain"}},
        [*BACKBONES, "pretrain"],
    )
    mine, theirs = weights(taken), weights(RunFolder(bench.inputs["pretrain"].path))
    connector = [name for name in theirs if name.startswith("connector.")]
    assert connector and all(torch.equal(mine[name], theirs[name]) for name in connector)


def test_a_blind_model_sees_one_colour(bench: Bench) -> None:
    run = bench.order("blind", "train", CAPTIONS, BACKBONES, {"sight": "blind"}, Resources(threads=1))
    order = run.read_order()
    assert order is not None
    data: Any = build_code(order).data("train")
    pixels = [data.sample(number).pixels for number in range(6)]
    assert len({array.tobytes() for array in pixels if array is not None}) == 1


@pytest.mark.parametrize("languages", [{"ko": 1.0}, {"en": 0.5, "ko": 0.5}])
def test_a_phase_trains_on_the_languages_it_names(bench: Bench, finetuned: RunFolder, languages: Any) -> None:
    order = finetuned.read_order()
    assert order is not None
    parameters = {**order.parameters, "languages": languages}
    mixture = build_code(order.model_copy(update={"parameters": parameters})).data("train").mixture  # type: ignore[attr-defined]
    spoken = [rows.conversation(row).language for rows, row in map(mixture.place, range(len(mixture)))]
    assert {name: spoken.count(name) / len(spoken) for name in set(spoken)} == languages
    everything = build_code(order).data("train").mixture  # type: ignore[attr-defined]
    assert len(spoken) < len(everything)


def test_what_is_supervised_is_told(bench: Bench, finetuned: RunFolder) -> None:
    result = finetuned.read_result()
    assert result is not None
    facts = result.facts
    assert facts["supervised.user"] == 0
    assert facts["supervised.none"] == 0 and facts["supervised.all"] == 0 and facts["truncated.answers"] == 0
    assert "USER: <image>" in facts["batch.text"] and "ASSISTANT: " in facts["batch.text"]
    assert facts["supervised.preview"].endswith("</s>") and facts["batch.padding"] < 0.5


def test_a_tower_without_cls_loses_no_patch(bench: Bench, finetuned: RunFolder) -> None:
    order = finetuned.read_order()
    assert order is not None
    code: Any = build_code(order)
    assert code.assembly.image_tokens == 16 == code.assembly.build(seed=1).image_tokens


def test_a_picture_that_is_gone_is_named_with_its_row(bench: Bench, finetuned: RunFolder) -> None:
    order = finetuned.read_order()
    assert order is not None
    data: Any = build_code(order).data("train")
    rows, row = data.mixture.place(0)
    name = rows.conversation(row).images[0]
    rows.source._members().pop(name)
    with pytest.raises(DataError, match=rf"set instruct row {row + 1}: .*{name}"):
        data.batch(np.array([0]), seed=1, step=0)


def test_benchmarks_are_asked_and_none_was_trained_on(bench: Bench, finetuned: RunFolder) -> None:
    root = "prepared:benchmarks"
    asked = {
        "gqa": {"questions": f"{root}/gqa/testdev_balanced_questions.json", "images": f"{root}/gqa/images"},
        "pope": {"questions": f"{root}/pope", "images": f"{root}/pope/images"},
        "scienceqa": {"questions": f"{root}/scienceqa"},
    }
    settings = {"benchmarks": asked, "decoding": {"max_new_tokens": 3}, "batch": 4}
    run = bench.run("evaluate", "evaluate", settings, ["prepare", "finetune"])
    result = run.read_result()
    assert result is not None
    assert {"GQA", "SQA", "POPE/accuracy", "POPE/random/accuracy", "POPE/adversarial/yes_ratio"} <= set(result.metrics)
    assert not [name for name in result.facts if name.startswith("overlap.")]
    assert (run.path / "artifacts/answers/pope.jsonl").read_text().count("\n") == 12
    assert any(path.suffix == ".png" for path in (run.path / "artifacts/pictures").iterdir())


def test_a_probe_tells_what_images_are_worth(bench: Bench, finetuned: RunFolder) -> None:
    run = bench.run("probe", "probe", {"rows": 4, "batch": 2}, ["prepare", "finetune"])
    result = run.read_result()
    assert result is not None and set(result.metrics) == {"probe/another", "probe/none"}
    assert result.facts["probe.rows"] == 4 and all(value != 0 for value in result.metrics.values())
    order = run.read_order()
    assert order is not None
    blind = bench.run("probe-blind", "probe", {"rows": 4}, ["prepare", "finetune"], model={"sight": "blind"})
    told = blind.read_result()
    assert told is not None and told.metrics == pytest.approx({"probe/another": 0, "probe/none": 0}, abs=1e-6)


def test_labels_of_a_tower_lie_where_the_things_are(bench: Bench) -> None:
    run = RunFolder(bench.inputs["tower"].path)
    order = run.read_order()
    assert order is not None
    code: Any = build_code(order)
    plain = code.data("val")
    words = {number: word for word, number in code.words.items()}
    for number in range(plain.samples):
        rows, row = plain._mixture.place(number)
        made = plain.batch(np.array([number]), seed=1, step=0)
        grid = made["labels"][0].reshape(4, 4, -1)
        for one in rows.raw(row)["objects"]:
            left, top, right, bottom = one["box"]
            found = {words[i] for i in grid[(top + bottom) // 24, (left + right) // 24].nonzero().flatten().tolist()}
            assert {word for word in one["words"] if word in code.words} <= found
    changed = code.data("train")
    white = np.full((8, 3, 48, 48), 255, np.uint8)
    labels = np.zeros((8, 16, 3), np.uint8)
    labels[:, 0, 1] = 1
    changed._change(white, labels, np.random.default_rng(0))
    assert (white == 255).all()
    assert set(np.flatnonzero(labels[:, :, 1].any(0)).tolist()) == {0, 3} and labels.sum() == 8
