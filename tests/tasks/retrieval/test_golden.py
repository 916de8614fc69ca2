"""Fixed inputs give fixed results: when one of these changes, the version of its stage kind has to rise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablab.contract.order import Input, Order
from ablab.contract.registry import find_task
from ablab.contract.result import Result
from ablab.store.layout import Store
from ablab.tasks.retrieval.mining import read_negatives
from ablab.tasks.retrieval.sections import Data, Loss, Model, Towers
from ablab.worker.main import execute

#: Losses on validation, scores over the pool, the mean row of what is mined, what an index holds of the exact best.
GOLDEN = {
    "prepare": 0.003003, "pretrain": 3.52092, "train": 1.79413, "mine": 299.875, "refine": 1.78148, "index": 0.8,
    "evaluate": 0.053285, "evaluate, indexed": 0.049923, "probe": 0.142857, "bm25": 0.412202, "search": 3.99967,
}  # fmt: skip


class Runs:
    """Runs of one store, each by an order as the launcher writes it."""

    def __init__(self, store: Store, sections: dict[str, Any]) -> None:
        self._store, self._sections = store, sections

    def __call__(self, kind: str, inputs: list[Input], /, **parameters: Any) -> tuple[Input, Result]:
        spec = find_task("retrieval").stages[kind]
        number = 1 + sum(path.name.startswith(f"{kind}-") for path in (self._store.root / "runs").glob("*"))
        folder = self._store.run(f"{kind}-{number}").create()
        order = Order(
            key=f"{kind}{number}",
            stage=kind,
            kind=kind,
            task="retrieval",
            study="golden",
            profile="full",
            experiment="A",
            seed=1,
            sections={name: self._sections[name].model_dump(mode="json") for name in spec.sections},
            parameters=spec.parameters.model_validate(parameters).model_dump(mode="json"),
            inputs=tuple(inputs),
            folder=str(folder.path),
            study_folder=str(self._store.root),
        )
        folder.write_order(order)
        assert execute(folder.order_path) == 0
        result = folder.read_result()
        assert result is not None
        return Input(reference=kind, stage=kind, kind=kind, key=order.key, path=str(folder.path)), result


def test_every_stage_kind_gives_what_it_gave(tmp_path: Path, data: Data, towers: Towers, model: Model) -> None:
    model = model.model_copy(update={"cells": "shared"})
    sections = {"data": data, "towers": towers, "model": model, "loss": Loss(temperature=0.1, score="mean")}
    run = Runs(Store(tmp_path), sections)
    training = {"batch": 8, "optimizer": {"learning_rate": 3e-3}, "schedule": {"warmup": 0}}
    prepared, facts = run("prepare", [])
    before, pretrained = run("pretrain", [prepared], steps=6, images=1.0, **training)
    trained, fine = run("train", [prepared, before], steps=8, augmentation=0.1, **training)
    mined, _ = run("mine", [prepared, trained], negatives=2)
    _, refined = run("train", [prepared, trained, mined], steps=4, negatives=1, chunk=3, **training)
    index, small = run("index", [prepared, trained], form="residual", bits=4)
    _, scores = run("evaluate", [prepared, trained], depth=100)
    _, indexed = run("evaluate", [prepared, trained, index], depth=100)
    _, probed = run("probe", [prepared, trained], cutoff=50)
    _, words = run("bm25", [prepared])
    _, asked = run("search", [prepared, trained], text="what is this?", top=3)
    found = {
        "prepare": facts.facts["positives.collision.train"],
        "pretrain": pretrained.metrics["val/loss"],
        "train": fine.metrics["val/loss"],
        "mine": float(read_negatives(mined).mean()),
        "refine": refined.metrics["val/loss"],
        "index": small.facts["index.overlap@10"],
        "evaluate": scores.metrics["test/mrr_at_100"],
        "evaluate, indexed": indexed.metrics["test/mrr_at_100"],
        "probe": probed.metrics["probe/query-without-text/hit_at_50"],
        "bm25": words.metrics["test/mrr_at_10"],
        "search": asked.facts["search.found"][0]["score"],
    }
    assert found == pytest.approx(GOLDEN, rel=3e-3)
    # An index of one model is not asked with the queries of another.
    further, _ = run("train", [prepared, trained], steps=1, **training)
    with pytest.raises(AssertionError):
        run("evaluate", [prepared, further, index])
    assert "holds vectors of train" in (tmp_path / "runs" / "evaluate-3" / "state.json").read_text()
