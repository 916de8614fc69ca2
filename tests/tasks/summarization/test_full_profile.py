"""Every arm of the full profile trains and writes its submission, on models loaded by their names on the hub.

Nothing of the study is changed but what makes it small: two steps, few tokens of output, scores by characters. Names
lead to a hub cache of tiny repositories of the same classes and formats, data to files as the competition has them.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ablab.lab
from ablab.data.generated_dialogues import generate_dialogues
from ablab.plan.planning import make_plan
from ablab.store.layout import Store
from ablab.study.loading import load
from tests.tasks.full_profiles import offline_hub, run_plan
from tests.tasks.summarization.test_dialogue_summary import LOG
from tests.tasks.summarization.tiny_hub import write_hub

STUDY = Path(__file__).parents[3] / "studies" / "dialogue-summary.yaml"
ARMS = (*LOG, "whole", "filler", "decoding", "llm")
SMALL = [
    "defaults.data.splits.validation=0.2",
    "defaults.pipeline.train.steps=2",
    "defaults.pipeline.train.epochs=null",
    "defaults.pipeline.train.schedule.warmup_ratio=0",
    "defaults.pipeline.evaluate.decoding.max_new_tokens=4",
    "defaults.pipeline.evaluate.rouge.samples=10",
    "defaults.pipeline.evaluate.rouge.tokenizer=characters",
    "experiments.decoding.pipeline.decode-sweep.rouge.tokenizer=characters",
    "experiments.decoding.pipeline.decode-sweep.decoding.max_new_tokens=4",
    "experiments.decoding.pipeline.decode-sweep.dialogues=2",
]


def write_csv(path: Path, rows: list[dict[str, Any]], *, summaries: bool = True) -> None:
    columns = ("fname", "dialogue", "summary", "topic") if summaries else ("fname", "dialogue")
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, "summary": row["summaries"][0]} for row in rows)


class Lab:
    """The study in a folder of its own, its runs done as the launcher would order them, each once."""

    def __init__(self, root: Path, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> None:
        self.path = root / "dialogue-summary.yaml"
        shutil.copy(STUDY, self.path)
        data = root / "dialogue-summary"
        write_csv(data / "train.csv", train)
        write_csv(data / "dev.csv", test)
        write_csv(data / "test.csv", test[:2], summaries=False)
        self.study = load(self.path, overrides=SMALL)
        self.store = Store(root / "lab")

    def run(self, name: str) -> dict[str, Any]:
        plan = make_plan(self.study, self.store, only=[name], seeds=[42])
        done = run_plan(plan, self.store, study_folder=self.path.parent)
        return {run.stage.name: (folder, folder.read_result()) for run, folder in done}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("full")
    train = list(generate_dialogues("train", rows=24, languages=["ko"]))
    test = list(generate_dialogues("test", rows=3, languages=["ko"]))
    write_hub(root / "hub", [text for row in train for text in (row["dialogue"], *row["summaries"])])
    with offline_hub(root / "hub"):
        made = Lab(root, train, test)
        whole = ablab.lab.Lab(made.study, made.store)
        waits = [run for run in whole.plan().runs.values() if run.unresolved]
        assert waits and whole.resolve() and not whole.resolve()
        assert not any(run.unresolved for run in whole.plan().runs.values()), "names are pinned as the cache has them"
        yield made


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_runs_on_models_of_the_hub(lab: Lab, name: str) -> None:
    arm = lab.study.experiments[name]
    results = lab.run(name)
    _, trained = results["train"]
    part = arm.stage("train").parameters.parts["all"]
    assert trained.facts["steps.done"] == 2 and 0 < trained.metrics["train/loss"] < 50
    table = {row["part"]: row for row in trained.facts["parameters.table"]}["all"]
    assert table["mode"] == part.mode and table["trained"] > 0
    if part.mode == "qlora":
        # No tag is in these vocabularies: each has a row that trains beside the adapters.
        assert trained.facts["tokens.new"] == trained.facts["tokens.new_trained"] == 15
    if trained.facts["architecture"] == "bart":
        assert trained.facts["positions.limit"] == 1026
    folder, judged = results["evaluate"]
    assert set(judged.metrics) >= {"test/score", "test/rouge1_words", "test/empty"}
    decoding = judged.facts["evaluation.decoding"]
    assert decoding["no_repeat_ngram"] == 3 and decoding["max_new_tokens"] == 4
    if name == "decoding":
        assert decoding == results["decode-sweep"][1].facts["chosen"]
    else:
        assert decoding["beams"] == arm.stage("evaluate").parameters.decoding.beams
    with (folder.artifacts / "submission.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["fname", "summary"] and len(rows) == 2, "of the set that is handed in"
    assert len((folder.artifacts / "predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 3
