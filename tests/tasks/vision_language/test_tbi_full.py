"""Experiments of the plan in the full profile, each stage of theirs, on InternVL checkpoints loaded by name.

Nothing of the study is changed but what makes it small: steps, batches, tiles, queries, rows that are drawn, lengths of
answers. Names
lead to a hub cache of tiny repositories in InternVL's own format, with as many layers as the real ones have, and to
files in the formats of the authors of eleven sets and fifteen benchmarks.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ablab.contract.merge import Merge
from ablab.plan.planning import make_plan
from ablab.store.layout import Store
from ablab.study.loading import load
from ablab.tasks.vision_language.config import Phase
from ablab.worker.code import build_code
from tests.models.tiny_internvl import internlm2_config, vision_config, write_internvl
from tests.tasks.full_profiles import lock_names, new_repository, offline_hub, run_plan
from tests.tasks.vision_language.benchmarks import official
from tests.tasks.vision_language.tiny_hub import REVISION

STUDY = Path(__file__).parents[3] / "studies" / "tbi-mllm.yaml"
BASE, TUNED = "OpenGVLab/InternVL2_5-8B", "OpenGVLab/InternVL2_5-8B-MPO"
LAYERS, DEPTH = 32, 24
#: Metrics of one evaluation; CharXiv has no judge here and is marked by its rule.
SCORES = {
    "MMBench-EN", "MMBench-KO", "TextVQA", "DocVQA", "InfoVQA", "ChartQA", "OCRBench", "MathVista", "MathVerse", "WTQ",
    "TabFact", "K-DTCBench", "MMStar", "SEED-Bench", "average/korean", "average/english", "average/overall",
}  # fmt: skip
_WORDS = "A chat about pictures.\nWhat is in it? a red square\n무엇이 있나요? 빨간 네모\nyes no 1 2 3\n"


def write_tokenizer(folder: Path) -> int:
    """Write what lies beside InternLM2's weights, and return how many tokens there are.

    A sentencepiece model, the marks of ChatML as added tokens, and code of the repository's own, which must not run.
    """
    import sentencepiece

    text = folder / "words.txt"
    text.write_text(_WORDS * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=330, model_type="bpe", byte_fallback=True,
        add_dummy_prefix=False, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
        unk_id=0, bos_id=1, eos_id=2, hard_vocab_limit=False,
    )  # fmt: skip
    size = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model")).get_piece_size()
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    marks = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
    settings = {
        "tokenizer_class": "InternLM2Tokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "</s>",
        "added_tokens_decoder": {str(size + n): {"content": mark, **plain} for n, mark in enumerate(marks)},
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    for file in ("tokenization_internlm2.py", "configuration_internvl_chat.py", "modeling_internvl_chat.py"):
        (folder / file).write_text("raise RuntimeError('code of the repository ran')\n")
    return size + len(marks)


def write_checkpoint(folder: Path, *, seed: int, near: dict[str, torch.Tensor] | None = None) -> dict[str, Any]:
    """Write a checkpoint: drawn, or a fine-tune `near` another."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder)
    drawing = torch.Generator().manual_seed(seed)
    made = write_internvl(
        folder,
        decoder=internlm2_config(
            vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=LAYERS,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=4096,
        ),
        vision=vision_config(
            hidden_size=16, intermediate_size=24, num_hidden_layers=DEPTH, num_attention_heads=2, image_size=112,
            patch_size=14,
        ),
        drawn=lambda *shape: 0.1 * torch.randn(*shape, generator=drawing),
    )  # fmt: skip
    if near is not None:
        from safetensors.torch import save_file

        for shard in folder.glob("*.safetensors"):
            moved = {name: near[name] + 0.01 * tensor for name, tensor in load_file(shard).items()}
            save_file(moved, shard, metadata={"format": "pt"})
    processor = {
        "feature_extractor_type": "CLIPFeatureExtractor", "crop_size": 112, "size": 112, "do_center_crop": True,
        "do_normalize": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225], "resample": 3,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
        "AutoModel": "modeling_internvl_chat.InternVLChatModel",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return made


def write_hub(root: Path, study: Path) -> None:
    """Write the three checkpoints that the study names, and the two benchmarks that it takes from the hub."""
    base = write_checkpoint(new_repository(root, BASE, revision=REVISION), seed=1)
    write_checkpoint(new_repository(root, TUNED, revision=REVISION), seed=2, near=base)
    write_checkpoint(study / "models" / "internvl2_5-8b-korean", seed=3, near=base)
    options: dict[str, Any] = {"question": ["이것은?", "맞나요?"], "hint": [None, None], "answer": ["B", "A"]}
    options |= {"A": ["빨강", "예"], "B": ["파랑", "아니오"], "C": ["초록", None], "D": ["검정", None]}
    picture = [{"bytes": official.picture(), "path": "x.png"}] * 2
    _hub_set(root, "NCSOFT/K-MMBench", "dev", {"index": [1, 2], **options, "category": ["a", "b"], "image": picture})
    choices = {f"choice_{letter}": ["하나", "둘"] for letter in "abcd"}
    rows = {"index": ["d1", "c1"], "question": ["제목은?", "값은?"], **choices, "answer": ["A", "D"],
            "category": ["document", "chart"], "image": picture}  # fmt: skip
    _hub_set(root, "NCSOFT/K-DTCBench", "test", rows)


def _hub_set(root: Path, name: str, split: str, rows: dict[str, Any]) -> None:
    folder = root / f"datasets--{name.replace('/', '--')}" / "snapshots" / REVISION / "data"
    folder.mkdir(parents=True)
    refs = folder.parents[2] / "refs"
    refs.mkdir()
    (refs / "main").write_text(REVISION)
    pq.write_table(pa.table(rows), folder / f"{split}-00000-of-00001.parquet")


def write_sets(folder: Path, study: Any) -> None:
    """Write the training sets where the study looks for them, as LLaVA's JSON."""
    for name, given in study.experiments["A1"].stage("prepare").sections["data"].own.items():
        korean = given.language == "ko"
        asked, said = ("무엇이 있나요?", "빨간 네모") if korean else ("What is in it?", "a red square")
        rows = [
            {
                "id": f"{name}-{number}",
                "image": f"{number}.png",
                "conversations": [
                    {"from": "human", "value": f"<image>\n{asked}"},
                    {"from": "gpt", "value": f"{said} {number}"},
                ],
            }
            for number in range(12)
        ]
        official.dump(folder / given.files[0], rows)
        for number in range(12):
            official.save(folder / given.images / f"{number}.png")


def write_benchmarks(folder: Path) -> None:
    """Write the official files of the benchmarks under the names that the study gives them."""
    eval_, made = folder / "eval", folder / "official"
    for key, places in {
        "mmbench_en": {"mmbench-en.tsv": "mmbench/mmbench_dev_en.tsv"},
        "textvqa": {"TextVQA_0.5.1_val.json": "textvqa/TextVQA_0.5.1_val.json", "train_images": "textvqa/images"},
        "docvqa": {"spdocvqa/val_v1.0.json": "docvqa/val_v1.0.json", "spdocvqa": "docvqa/images"},
        "infovqa": {"infographicsVQA_val_v1.0.json": "infovqa/infographicsVQA_val_v1.0.json",
                    "images": "infovqa/images"},
        "chartqa": {"ChartQA/test": "chartqa"},
        "ocrbench": {"OCRBench/OCRBench.json": "ocrbench/OCRBench.json", "OCRBench_Images": "ocrbench/images"},
        "mathvista": {"MathVista/testmini.json": "mathvista/testmini.json", "MathVista": "mathvista/images"},
        "mathverse": {"testmini.json": "mathverse/testmini.json", "images": "mathverse/images"},
        "charxiv": {"data/reasoning_val.json": "charxiv/reasoning_val.json", "images": "charxiv/images"},
        "wtq": {"TableVQABench.tsv": "tablevqabench/wtq.tsv"},
        "tabfact": {"TableVQABench.tsv": "tablevqabench/tabfact.tsv"},
        "mmstar": {"mmstar.parquet": "mmstar/mmstar.parquet"},
        "seed_bench": {"SEED-Bench.json": "seed-bench/SEED-Bench.json", "image": "seed-bench/images"},
    }.items():  # fmt: skip
        source = made / key
        source.mkdir(parents=True)
        getattr(official, key)(source)
        for one, place in places.items():
            (eval_ / place).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (source / one).is_dir() else shutil.copy
            copy(source / one, eval_ / place)


def small(path: Path) -> list[str]:
    """Return the overrides that make every stage small: two steps of four samples, answers of two tokens."""
    found = ["defaults.data.rendered.ocr-ko.rows=12", "defaults.data.rendered.ocr-ko.workers=1",
             "defaults.data.held_out=4", "defaults.data.tiles=2"]  # fmt: skip
    for name, arm in load(path).experiments.items():
        if name[0] in "CEF":
            found.append(f"experiments.{name}.model.connector.queries=16")
        for stage in arm.stages:
            at = f"experiments.{name}.pipeline.{stage.name}"
            if isinstance(stage.parameters, Phase):
                found += [f"{at}.steps=2", f"{at}.batch=4", f"{at}.schedule.warmup=1", f"{at}.checkpoints.every=null"]
            elif stage.kind == "evaluate":
                found += [f"{at}.decoding.max_new_tokens=2"]
    return found


class Lab:
    """The study in a folder of its own, its runs done as the launcher would order them, each once."""

    def __init__(self, root: Path) -> None:
        self.path = root / "tbi-mllm.yaml"
        shutil.copy(STUDY, self.path)
        write_sets(root, load(self.path))
        write_benchmarks(root)
        self.study = load(self.path, overrides=["seeds=[42]", *small(self.path)])
        self.store = Store(root / "lab")

    def run(self, name: str) -> dict[str, Any]:
        """Return the results of an arm by stage, with its folders under `folders`."""
        results: dict[str, Any] = {"folders": {}}
        for run, folder in run_plan(
            make_plan(self.study, self.store, only=[name]), self.store, study_folder=self.path.parent
        ):
            if (name, 42) in run.users or run.experiment == name or not run.stage.spec.seeded:
                results[run.stage.name] = folder.read_result()
                results["folders"][run.stage.name] = folder
        return results


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("tbi")
    write_hub(root / "hub", root)
    with offline_hub(root / "hub"):
        made = Lab(root)
        lock_names(made.study, made.path)
        yield made


@pytest.mark.parametrize("name", ["A0", "A1", "B3", "C2", "D1", "D2", "F2", "F4"])
def test_an_experiment_of_the_plan_runs(lab: Lab, name: str) -> None:
    results = lab.run(name)
    for stage in lab.study.experiments[name].stages:
        if isinstance(stage.parameters, Phase):
            facts = results[stage.name].facts
            assert facts["steps.done"] == 2 and facts["supervised.none"] == 0
            assert 0 < results[stage.name].metrics["train/loss"] < 20
    asked = results["evaluate"]
    assert set(asked.metrics) >= SCORES
    with (results["folders"]["evaluate"].artifacts / "benchmarks.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    # What no seed enters, as in A0, has none.
    drawn = any(isinstance(stage.parameters, Phase | Merge) for stage in lab.study.experiments[name].stages)
    assert row["experiment"] == name and row["seed"] == ("42" if drawn else "")


def test_adapters_stand_beside_every_matrix_of_internlm2(lab: Lab) -> None:
    (decoder,) = [row for row in lab.run("D1")["tune"].facts["parameters.table"] if row["part"] == "llm"]
    assert decoder["mode"] == "lora" and decoder["adapted"] == 7 * LAYERS


def test_experts_are_used_in_both_languages_and_their_losses_are_logged(lab: Lab) -> None:
    results = lab.run("F4")
    assert results["mole"].facts["experts.auxiliary_gradient"] > 0
    steps = [json.loads(line) for line in results["folders"]["mole"].attempt(1).events.read_text().splitlines()]
    assert any({"experts-balance", "experts-z"} <= step.keys() for step in steps)


def test_a_phase_upon_a_merged_decoder_starts_from_it(lab: Lab) -> None:
    merged = lab.run("D2")["folders"]["join"].artifacts / "model"
    state = {name: tensor for shard in merged.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    base = lab.path.parent / "hub" / f"models--{BASE.replace('/', '--')}" / "snapshots" / REVISION
    before = {name: tensor for shard in base.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    name = "language_model.model.layers.3.feed_forward.w1.weight"
    moved = (state[name] != before[name]).float().mean()
    assert 0 < moved < 0.5, "about one entry of ten is kept of each of two"
    order = lab.run("F2")["folders"]["projector"].read_order()
    assert order is not None
    model: Any = build_code(order).model(seed=42)
    torch.testing.assert_close(model.llm.model.layers[3].mlp.gate_proj.weight.detach(), state[name])
