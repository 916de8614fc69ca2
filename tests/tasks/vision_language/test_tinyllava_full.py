"""Every experiment of the log, in the full profile, trains and answers all eight benchmarks on models loaded by name.

Nothing of the study is changed but what makes it small: batches of four instead of 256 and 128, fewer rows held out,
and bf16 for fp16, which a processor cannot train in. Names lead to a hub cache of tiny repositories of the same classes
and formats.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ablab.plan.planning import make_plan
from ablab.store.layout import Store
from ablab.study.loading import load
from tests.tasks.full_profiles import lock_names, offline_hub, run_plan
from tests.tasks.vision_language.benchmarks import official
from tests.tasks.vision_language.tiny_hub import write_hub

STUDY = Path(__file__).parents[3] / "studies" / "tinyllava.yaml"
LOG = [f"E{number:02}" for number in range(1, 23)]
SCORES = {"GQA", "SQA", "TextVQA", "VQAv2", "VizWiz", "POPE/adversarial/accuracy", "MMVet", "LLaVA-W"}
SMALL = [
    "defaults.data.held_out=2",
    "defaults.pipeline.pretrain.batch=4",
    "defaults.pipeline.finetune.batch=4",
    "defaults.pipeline.pretrain.precision=bf16",
    "defaults.pipeline.finetune.precision=bf16",
    "defaults.pipeline.evaluate.decoding.max_new_tokens=3",
    "defaults.pipeline.evaluate.benchmarks.mmvet.max_new_tokens=3",
    "defaults.pipeline.evaluate.benchmarks.llava-w.max_new_tokens=3",
    "experiments.E05.pipeline.pretrain.micro_batch=2",
]


class Judge(BaseHTTPRequestHandler):
    """Says of every answer what both judged benchmarks can read."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = "0.5" if "Correctness" in asked["messages"][-1]["content"] else "8 4\nIt misses the hill."
        body = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def write_data(folder: Path, study: Any) -> None:
    """Write the training sets and the benchmarks where the study looks for them, in the formats of their authors."""
    data = study.experiments["E04"].stage("prepare").sections["data"]
    for name, given in data.own.items():
        rows = []
        for number in range(10):
            turns = [("human", f"<image>\nWhat is in picture {number}?"), ("gpt", f"a red square, number {number}")]
            if name.startswith("instruct"):
                turns += [("human", "Is it big?"), ("gpt", "No.")]
            row: dict[str, Any] = {"id": f"{name}-{number}", "image": f"{name}/{number}.jpg"}
            row["conversations"] = [{"from": who, "value": text} for who, text in turns]
            if name.startswith("instruct") and number == 9:
                del row["image"]
                row["conversations"][0]["value"] = "What is two and two?"
            rows.append(row)
            picture = folder / given.images / f"{name}/{number}.jpg"
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(official.picture("blue", "JPEG"))
        official.dump(folder / given.files[0], rows)
    places = {
        official.gqa: "gqa", official.scienceqa: "", official.textvqa_llava: "textvqa", official.vqav2: "vqav2",
        official.vizwiz: "vizwiz", official.pope: "pope", official.mmvet: "mm-vet", official.llava_w: "",
    }  # fmt: skip
    for write, place in places.items():
        (folder / "eval" / place).mkdir(parents=True, exist_ok=True)
        write(folder / "eval" / place)


class Lab:
    """The study in a folder of its own, its runs done as the launcher would order them, each once."""

    def __init__(self, root: Path, judge: str) -> None:
        self.path = root / "tinyllava.yaml"
        shutil.copy(STUDY, self.path)
        write_data(root, load(self.path))
        overrides = [*SMALL, f"defaults.pipeline.evaluate.judge.url={judge}"]
        self.study = load(self.path, overrides=overrides)
        self.store = Store(root / "lab")

    def plan(self, name: str) -> Any:
        return make_plan(self.study, self.store, only=[name])

    def run(self, name: str) -> dict[str, Any]:
        plan = self.plan(name)
        results = {}
        for run, folder in run_plan(plan, self.store, study_folder=self.path.parent):
            if run.experiment == name or name in dict.fromkeys(user for user, _ in run.users):
                results[run.stage.name] = folder.read_result()
        return results


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("full")
    write_hub(root / "hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with offline_hub(root / "hub") as patch:
        patch.setenv("OPENAI_API_KEY", "x")
        made = Lab(root, f"http://127.0.0.1:{server.server_port}/v1")
        lock_names(made.study, made.path)
        yield made
    server.shutdown()
    server.server_close()


def parts_of(result: Any) -> dict[str, dict[str, Any]]:
    return {row["part"]: row for row in result.facts["parameters.table"]}


@pytest.mark.parametrize("name", LOG)
def test_an_experiment_of_the_log_runs(lab: Lab, name: str) -> None:
    results = lab.run(name)
    for stage in lab.study.experiments[name].stages:
        if stage.kind != "train":
            continue
        result, parts = results[stage.name], parts_of(results[stage.name])
        assert result.facts["steps.done"] == 2 and result.facts["supervised.none"] == 0
        assert 0 < result.metrics["train/loss"] < 10
        for part, given in stage.parameters.parts.items():
            assert parts[part]["mode"] == given.mode and (parts[part]["trained"] > 0) is (given.mode != "frozen")
            if given.mode == "unlocked":  # all but the last layer, whose output is not read
                model: Any = stage.sections["model"]
                last = {"openai": 22, "google": 25}[model.tower.name.partition("/")[0]]
                assert parts[part]["layers"] == f"{given.from_layer}-{last}"
            if given.mode == "lora":
                assert parts[part]["adapted"] == 2 * 6  # all matrices of both layers of a Phi
    asked = results["evaluate"]
    assert set(asked.metrics) >= SCORES and asked.metrics["MMVet"] == asked.metrics["LLaVA-W"] == 50.0
    assert not [fact for fact in asked.facts if fact.startswith(("overlap.", "judge."))]


@pytest.mark.parametrize(
    ("name", "stage", "source"),
    [("E05", "pretrain", "E04"), ("E06", "pretrain", "E04"), ("E07", "pretrain", "E04"), ("E08", "finetune", "E06")],
)
def test_a_part_comes_from_another_experiment(lab: Lab, name: str, stage: str, source: str) -> None:
    runs = lab.plan(name).runs
    took = [run for run in runs.values() if run.stage.name == stage and getattr(run.stage.parameters, "take", None)]
    (own,) = [run for run in took if (name, 42) in run.users and (source, 42) not in run.users]
    before = {given.reference: runs[given.key] for given in own.inputs}[f"{source}.{stage}"]
    assert before.stage.kind == "train" and before.stage is lab.study.experiments[source].stage(stage)
    assert f"{source}.{stage}" in dict(own.stage.parameters.take).values()
