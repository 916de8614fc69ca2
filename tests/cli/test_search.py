"""`ablab search` and its stage: an index and an encoded pool find the same, and mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ablab.cli.main import app
from ablab.contract.order import Input, Order
from ablab.data.emoji import concepts
from ablab.data.images import ImageSource
from ablab.data.mini_m2kr import write_mini_m2kr
from ablab.models.search import open_index
from ablab.store.layout import RunFolder, Store
from ablab.tasks.retrieval.asking import encode_one
from ablab.tasks.retrieval.config import Ask
from ablab.worker.code import build_code
from ablab.worker.main import execute
from ablab.worker.stages.evaluate import load_trained, weights_of

CONCEPTS = concepts()[::40]
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SECTIONS = {
    "towers": {
        "text": {"config": {"model_type": "clip_text_model", **TOWER, "max_position_embeddings": 32}},
        "vision": {"config": {"model_type": "clip_vision_model", **TOWER, "image_size": 16, "patch_size": 8}},
        "tokens": 32,
    },
    "model": {"width": 16, "heads": 2, "queries": 3, "output": 8, "taps": "all"},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Runs of a tiny study: prepare, train and index."""
    folder = tmp_path_factory.mktemp("search")
    write_mini_m2kr(folder, subsets=("evqa",), concepts=CONCEPTS, validation=0.2, test=0.3)
    store = Store(folder / "lab")
    files = {split: [f"evqa_{split}.jsonl"] for split in ("train", "val", "test")}
    pools = {split: [f"evqa_passages_{split}.jsonl"] for split in ("train", "val", "test")}
    data = {"source": "files", "queries": files, "passages": pools, "images": "images.tar", "image_size": 16}
    stages = {
        "prepare": ({"data": {**data, "tokenizer": {"name": "bytes"}}}, {}),
        "train": ({**SECTIONS, "loss": {}}, {"steps": 2, "batch": 4, "validation": {"batches": 1}}),
        "index": (SECTIONS, {}),
    }
    made: dict[str, Input] = {}
    for kind, (sections, parameters) in stages.items():
        order_of(store, kind, made, sections=sections, parameters=parameters, study_folder=str(folder))
        assert execute(store.run(f"{kind}-{kind}0").order_path) == 0
        path = str(store.run(f"{kind}-{kind}0").path)
        made[kind] = Input(reference=kind, stage=kind, kind=kind, key=f"{kind}0", path=path)
    return store, made, folder


def order_of(store: Store, kind: str, inputs: dict[str, Input], *, name: str = "", **fields) -> RunFolder:
    run = store.run(f"{kind}-{name or kind}0").create()
    order = Order(
        key=f"{name or kind}0", stage=kind, kind=kind, task="retrieval", study="s", profile="full", experiment="A",
        seed=1, inputs=tuple(inputs.values()), folder=str(run.path), **fields,
    )  # fmt: skip
    run.write_order(order)
    return run


def ask(lab, name: str, inputs: list[str], **parameters) -> dict:
    store, made, folder = lab
    given = {kind: made[kind] for kind in inputs}
    run = order_of(
        store, "search", given, name=name, sections=SECTIONS, parameters=parameters, study_folder=str(folder)
    )
    assert execute(run.order_path) == 0
    return run.read_result().facts


@pytest.fixture(scope="module")
def picture(lab):
    _, _, folder = lab
    path = folder / "fox.png"
    path.write_bytes(ImageSource(folder / "images.tar").read(f"google/{CONCEPTS[7].code}.png"))
    return path


def test_an_index_and_an_encoded_pool_find_what_brute_force_finds(lab, picture):
    store, made, _ = lab
    parameters = {"text": "what is this?", "image": str(picture), "top": 6}
    indexed = ask(lab, "indexed", ["prepare", "train", "index"], **parameters)
    encoded = ask(lab, "encoded", ["prepare", "train"], **parameters)
    assert indexed["search.indexed"] and not encoded["search.indexed"]
    assert [p["id"] for p in indexed["search.found"]] == [p["id"] for p in encoded["search.found"]]
    order = store.run("search-indexed0").read_order()
    code = build_code(order)
    model = load_trained(code, weights_of(order)[1], device=torch.device("cpu"), seed=1)
    query = encode_one(code, model, Ask(**parameters), instruction=indexed["search.instruction"])
    (passages,) = open_index(Path(made["index"].path, "artifacts", "index")).passages_by_shard()
    scores = torch.einsum("td,npd->ntp", query[0], passages).amax(2).sum(1)
    assert indexed["search.pool"] == len(passages)
    best = scores.topk(6)
    assert [p["score"] for p in indexed["search.found"]] == pytest.approx(best.values.tolist(), abs=1e-5)
    pool = code.pairs.pool("test")
    assert [p["id"] for p in indexed["search.found"]] == [
        code.pairs.passages[int(pool[place])]["id"] for place in best.indices.tolist()
    ]


def test_the_instruction_is_the_data_s_own_in_the_language_of_the_text(lab):
    english = ask(lab, "english", ["prepare", "train", "index"], text="what is this?", top=1)
    korean = ask(lab, "korean", ["prepare", "train", "index"], text="이것은 무엇인가요?", top=1)
    assert english["search.instruction"].isascii() and not korean["search.instruction"].isascii()
    none = ask(lab, "none", ["prepare", "train", "index"], text="what is this?", instruction="", top=1)
    assert none["search.instruction"] == ""
    assert none["search.found"][0]["score"] != english["search.found"][0]["score"]


def call(lab, *arguments: str, code: int = 0):
    store, _, _ = lab
    done = CliRunner().invoke(app, ["search", *arguments, "--store", str(store.root)])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_the_command_prints_passages_with_scores(lab, picture, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = call(lab, "index-index0", "what is this?", "--image", str(picture), "-k", "6", "--json")
    found = json.loads(done.output)
    facts = ask(lab, "again", ["prepare", "train", "index"], text="what is this?", image=str(picture), top=6)
    assert [p["id"] for p in found["found"]] == [p["id"] for p in facts["search.found"]]
    assert found["run"] == "index-index0" and found["indexed"] and found["pool"] == facts["search.pool"]
    assert not list((lab[0].root / "runs").glob("*demand*")), "nothing stays in the store"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("index-index0",), "nothing to search for"),
        (("index-index0", " "), "nothing to search for"),
        (("index-index0", "x", "--devices", "first"), "expected GPU indices such as 0,1, or cpu"),
        (("index-index0", "x", "--devices", "99"), "--devices 99: no such GPU"),
        (("index-index0", "x", "--image", "none.png"), "none.png: no such image file"),
        (("index-index0", "x", "--split", "train"), "indexed the pool of test"),
        (("index-index0", "x", "--split", "dev"), "expected train, val or test"),
        (("prepare-prepare0", "x"), "no trained model behind it"),
        (("trian", "x"), "matches 'trian'"),
    ],
)
def test_mistakes_are_named(lab, arguments, message):
    done = call(lab, *arguments, code=1)
    assert message in str(done.exception)
