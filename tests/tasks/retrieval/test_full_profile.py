"""Every arm of the full profile prepares, trains and searches, on towers and tables loaded by their names on the hub.

Nothing of the study is changed but what makes it small: batches of four instead of 64, a narrow cell, few rows drawn.
Names lead to a hub cache of tiny repositories of the same classes and formats; bf16 stays, which a processor can.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ablab.lab
from ablab.data.pairs import Pairs
from ablab.plan.planning import make_plan
from ablab.store.layout import RunFolder, Store
from ablab.study.loading import load
from ablab.tasks.retrieval.mining import FILE
from ablab.tasks.retrieval.preparation import FOLDER
from ablab.tasks.retrieval.task import Retrieval
from tests.tasks.full_profiles import lock_names, offline_hub, run_plan
from tests.tasks.retrieval import tiny_hub
from tests.tasks.retrieval.tiny_hub import FLAT, ONE_SIDE, OUTSIDE, PAIR, REVISION, THINGS

STUDY = Path(__file__).parents[3] / "studies" / "m2kr-retrieval.yaml"
SMALL = [
    "defaults.model.width=32",
    "defaults.model.heads=4",
    "defaults.pipeline.train.batch=4",
    "experiments.INFOSEEK.data.rows=8",
    "experiments.OKVQA-BALANCED.data.rows=8",
    "experiments.hard-negatives.pipeline.refine.batch=4",
]
#: What the laptop profile has beside an arm of the full one.
MORE = [
    "experiments.taps-last.pipeline.index={needs: [prepare, train], form: residual}",
    "experiments.taps-last.pipeline.probe={needs: [prepare, train]}",
]
THIRDS = ([2, 5, 8], [3, 7, 11])
TAPS = {"taps-last": ([8], [11]), "taps-all": (list(range(9)), [0, 2, 3, 4, 6, 7, 8, 10, 11])}
#: Train queries by arm, of what its subset has.
SAMPLES = {"OVEN": 9, "by-id": 9, "as-negatives": 9, "ignored": 9, "distinct": 9, "blind-oven": 9, "OKVQA": 9}
LOG = ("OVEN", "INFOSEEK", "EVQA", "OKVQA", "OKVQA-BALANCED", "EVQA-VAL", "EVQA-TEST")
SOUND = (
    "fused", "taps-last", "taps-all", "pooled", "separate", "query-text", "query-image", "passage-text",
    "passage-image", "fixed-temperature", "hard-negatives", "blind", "by-id", "as-negatives", "ignored", "distinct",
    "blind-oven",
)  # fmt: skip


class Lab:
    """The study in a folder of its own, its runs done as the launcher would order them, each once."""

    def __init__(self, root: Path) -> None:
        self.path = root / "studies" / "m2kr-retrieval.yaml"
        self.path.parent.mkdir()
        shutil.copy(STUDY, self.path)
        tiny_hub.write_images(root / "m2kr-images")
        tiny_hub.write_flat(root / "m2kr-flat")
        self.study = load(self.path, overrides=SMALL)
        self.store = Store(root / "lab")

    def run(self, name: str, *, more: tuple[str, ...] = ()) -> dict[str, tuple[RunFolder, Any]]:
        """Return the folder and the result of every stage of an arm, of one seed."""
        study = load(self.path, overrides=[*SMALL, *more]) if more else self.study
        plan = make_plan(study, self.store, only=[name], seeds=[42])
        done = run_plan(plan, self.store, study_folder=self.path.parent)
        return {run.stage.name: (folder, folder.read_result()) for run, folder in done}

    def pairs(self, name: str) -> Pairs:
        return Pairs(self.run(name)["prepare"][0].artifacts / FOLDER)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("full")
    tiny_hub.write_hub(root / "hub")
    with offline_hub(root / "hub"):
        made = Lab(root)
        locked = lock_names(made.study, made.path)
        assert set(locked.values()) == {REVISION} and len(locked) == 2
        yield made


def test_the_arms_are_all_there(lab: Lab) -> None:
    run = {name for name, arm in lab.study.experiments.items() if not arm.planned}
    assert run == {*LOG, *SOUND, "bm25", "MOBILECLIP"}


@pytest.mark.parametrize("name", [*LOG, *SOUND])
def test_an_arm_trains_and_searches(lab: Lab, name: str) -> None:
    arm, results = lab.study.experiments[name], lab.run(name)
    for stage in arm.stages:
        if stage.kind != "train":
            continue
        facts, metrics = results[stage.name][1].facts, results[stage.name][1].metrics
        assert facts["steps.done"] == facts["steps.planned"] == 2 and facts["precision"] == "bf16"
        assert (facts["taps.text"], facts["taps.vision"]) == TAPS.get(name, THIRDS)
        assert facts["samples.train"] == SAMPLES.get(name, 8)
        assert facts["epoch.rest"] == SAMPLES.get(name, 8) % 4, "as the 339,137 of OVEN leave one"
        assert 0 < metrics["train/loss"] < 10 and 0 <= metrics["train/r_at_1"] <= 1
        parts, model = facts["parameters.parts"], stage.sections["model"]
        cells = {"fusion"} if model.cells == "shared" else {"query_fusion", "passage_fusion"}
        scale = {"scale"} if stage.sections["loss"].learnable else set()
        assert {part for part, counts in parts.items() if counts["trained"]} == {"text", "vision", *cells, *scale}
    if name == "EVQA-TEST":
        assert "evaluate" not in results, "what it was trained on"
        return
    facts, metrics = results["evaluate"][1].facts, results["evaluate"][1].metrics
    wanted = {f"test/hit_at_{k}" for k in (1, 5, 10)} | {"test/mrr_at_10", "test/ndcg_at_10"}
    answered = lab.pairs(name).manifest["source"].get("subset") != "OVEN"
    assert set(metrics) >= wanted and ("test/pseudo_recall_at_5" in metrics) == answered
    assert set(metrics) >= {each.metric for each in lab.study.comparisons if name in each.arms}
    assert facts["evaluation.pool"] == len(THINGS)
    assert facts["checkpoint.input"] == ("refine" if name == "hard-negatives" else "train")


def test_towers_are_those_of_the_repository(lab: Lab) -> None:
    """Weights, tokens and pixels give the states that transformers gives of the same files."""
    from PIL import Image
    from transformers import AutoTokenizer, CLIPModel

    from ablab.models.hub import load_image_processor

    folder = lab.run("fused")["train"][0]
    order = folder.read_order()
    assert order is not None and f"model:{PAIR}" in order.revisions
    stage = lab.study.experiments["fused"].stage("train")
    code = Retrieval(
        stage.sections, inputs=order.inputs, study_folder=order.study_folder, parameters=stage.parameters,
        revisions=order.revisions,
    )  # fmt: skip
    model = code.model(seed=42).eval()
    real: Any = CLIPModel.from_pretrained(PAIR, revision=REVISION).eval()
    row = code.pairs.queries("train")[0]
    made = code.items.tensors([row], sees=(True, True))
    words = AutoTokenizer.from_pretrained(PAIR)([row["text"]], return_tensors="pt")
    assert made["ids"].tolist() == words["input_ids"].tolist() and 10 < made["ids"].size(1) < 77
    image = Image.open(lab.path.parent.parent / "m2kr-images" / "EVQA" / code.pairs.pictures.names[row["image"]])
    pixels = load_image_processor(PAIR)(image.convert("RGB"), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        found = (model.text(ids=made["ids"], mask=made["mask"]), model.vision(pixels=made["pixels"]))
        given = (
            real.text_model(**words, output_hidden_states=True).hidden_states,
            real.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states,
        )
    for states, layers, taps in zip(found, given, THIRDS, strict=True):
        assert len(states) == 3
        for state, tap in zip(states, taps, strict=True):
            # A hidden state of index n + 1 is what layer n returned.
            torch.testing.assert_close(state, layers[tap + 1], atol=2e-5, rtol=1e-4)


def test_what_the_tables_lack_is_counted(lab: Lab) -> None:
    from transformers import AutoTokenizer

    assert lab.pairs("EVQA").manifest["facts"]["kinds.test"] == {"automatic": 4, "templated": 4}
    # Of the flat files and of the hub's tables alike.
    for name in ("EVQA", "fused"):
        facts = lab.pairs(name).manifest["facts"]
        assert facts["data.missing.train.image"] == 2 and facts["data.missing.test.image"] == 0
    assert facts["queries.train"] == 8 and facts["data.train queries without positive, left out"] == 1
    assert facts["positives.outside_pool.test"] == 1 and facts["positives.outside_pool.val"] == 0
    assert lab.run("fused")["evaluate"][1].facts["evaluation.unanswerable"] == 1
    trained = lab.run("fused")["train"][1].facts
    told = [*(tiny_hub.text_of("EVQA", thing) for thing in THINGS), tiny_hub.OUTSIDE_TEXT]
    lengths = np.array([len(ids) for ids in AutoTokenizer.from_pretrained(PAIR)(told)["input_ids"]])
    assert (lengths > 77).sum() == 1 and trained["truncated.query.tokens"] == 0
    assert trained["truncated.passage.texts"] == pytest.approx(1 / len(told))
    assert trained["truncated.passage.tokens"] == pytest.approx((lengths - 77).clip(0).sum() / lengths.sum())
    last, passages = list(lab.pairs("fused").queries("test"))[-1], lab.pairs("fused").passages
    assert [passages[row]["id"] for row in last["positives"]] == [OUTSIDE] and last["answers"] == ["harbour"]


def test_subsets_are_drawn_as_the_log_drew_them(lab: Lab) -> None:
    infoseek = lab.pairs("INFOSEEK")
    words = Counter(row["question"].split()[0] for row in infoseek.queries("train"))
    assert sum(words.values()) == 8 and set(words) == {"what", "which", "how", "who", "where"}
    assert max(words.values()) - min(words.values()) <= 1, "evenly by question words"
    assert lab.pairs("OVEN").manifest["facts"]["positives.distinct.train"] == 4
    both = lab.pairs("OKVQA")
    kept = {row["id"] for row in both.queries("train")}
    assert kept == {f"{FLAT}_train_{n}" for n in range(11) if n not in ONE_SIDE}
    for split in ("train", "val", "test"):
        for row in both.queries(split):
            assert row["image"] is not None and row["question"] and row["positives"]
            assert all(both.passages[p]["image"] is not None and both.passages[p]["text"] for p in row["positives"])
    left = "data.train queries without text and image on both sides, left out"
    assert both.manifest["facts"][left] == len(ONE_SIDE)
    assert {row["id"] for row in lab.pairs("OKVQA-BALANCED").queries("train")} < kept


def test_mined_negatives_are_no_positives(lab: Lab) -> None:
    results = lab.run("hard-negatives")
    assert results["train"][0].path == lab.run("fused")["train"][0].path, "goes on from the baseline"
    mined = np.load(results["mine"][0].artifacts / FILE)
    pairs = lab.pairs("hard-negatives")
    assert mined.shape == (8, 4) and (mined >= 0).all()
    for row, negatives in zip(pairs.queries("train"), mined, strict=True):
        texts = [pairs.passages[int(p)]["text"] for p in negatives]
        assert not set(row["positives"]) & set(negatives.tolist()) and len(set(texts)) == 4
        assert not any(answer in text for answer in row["answers"] for text in texts)
    # Four queries among four passages, and the two negatives that each of them brings.
    assert results["refine"][1].metrics["train/loss"] > results["train"][1].metrics["train/loss"]
    assert results["refine"][1].facts["samples.seen"] == 8


def test_repeats_are_told_apart(lab: Lab) -> None:
    losses = {
        name: lab.run(name)["train"][1].metrics["train/loss"]
        for name in ("by-id", "as-negatives", "ignored", "distinct")
    }
    assert len(set(losses.values())) == 4 and losses["ignored"] < losses["as-negatives"]


def test_the_baseline_of_words_finds_what_the_words_name(lab: Lab) -> None:
    results = lab.run("bm25")
    assert set(results) == {"prepare", "bm25"}
    metrics = results["bm25"][1].metrics
    assert metrics["test/hit_at_5"] == 7 / 8 and metrics["test/hit_at_1"] == 7 / 8, "but for the one of no pool"


def test_the_controls_see_nothing(lab: Lab) -> None:
    """Every query gets the same answer."""
    for name in ("blind", "blind-oven"):
        (shown,) = (lab.run(name)["evaluate"][0].artifacts / "evaluations").glob("*.json")
        examples = json.loads(shown.read_text())["examples"]
        assert len(examples) == 4 and len({example["output"] for example in examples}) == 1


def test_a_pool_is_indexed_and_probed(lab: Lab) -> None:
    results = lab.run("taps-last", more=tuple(MORE))
    facts = results["index"][1].facts
    assert facts["index.passages"] == len(THINGS) and 0.8 <= facts["index.overlap@10"] <= 1
    metrics, whole = results["probe"][1].metrics, results["evaluate"][1].metrics
    assert metrics["probe/whole/hit_at_5"] == whole["test/hit_at_5"]
    sides = {f"probe/{side}/hit_at_5" for side in ("passage-without-image", "passage-without-text", "query-empty")}
    assert metrics.keys() >= sides


def test_sides_differ_where_both_are_there(lab: Lab) -> None:
    losses = {
        name: lab.run(name)["train"][1].metrics["train/loss"] for name in ("fused", "passage-text", "passage-image")
    }
    assert len(set(losses.values())) == 3, losses
    assert lab.pairs("fused").manifest["facts"]["passages.without_image"] == 2


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is not None, reason="open_clip is here, and would download")
def test_an_arm_of_a_package_that_is_missing_says_so(lab: Lab) -> None:
    findings = ablab.lab.Lab(lab.study, lab.store).check()
    (told,) = [each for each in findings if each.id == "missing-package"]
    assert told.subjects == ("MOBILECLIP",) and "pip install 'ablab[open-clip]'" in told.remedy
    with pytest.raises(AssertionError, match=r"status='failed'.* step=0 .*pip install 'ablab\[open-clip\]'"):
        lab.run("MOBILECLIP")


def test_what_was_prepared_and_run_is_audited(lab: Lab) -> None:
    found = [each for each in ablab.lab.Lab(lab.study, lab.store).check() if each.checked]
    # Two steps of a warm-up of a hundred move no ranking of a dozen passages.
    assert {each.id for each in found if each.severity == "error"} <= {"identical-results"}
    told = {each.id: each for each in found if each.severity == "warning"}
    assert {"text-truncated", "positive-outside-pool", "repeated-positives", "one-pair-batch"} <= told.keys()
    assert "1 of 8 test queries" in told["positive-outside-pool"].message
    assert told["repeated-positives"].subjects == ("as-negatives",)
    assert "side-is-empty" not in told, "no arm sees the hub's passages by images alone"
    assert "numerics-differ" not in told, "all that was trained in bf16 is evaluated in bf16"
