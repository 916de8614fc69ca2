"""Fixed inputs give fixed results: when one of these changes, the version of its stage kind has to rise."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.order import Input, Order
from ablab.contract.result import Result
from ablab.store.layout import Store
from ablab.tasks.summarization.config import SPEC
from ablab.worker.main import execute

WHO, WHAT, WHEN = ("민수", "지영", "수진"), ("운동", "수업", "점심"), ("월요일", "화요일", "금요일", "주말")
ROWS = [
    (
        f"#Person1#: {WHO[i % 3]}, {WHAT[i % 3]} 언제 할까?\n#Person2#: {WHEN[i % 4]}에 하자.",
        f"#Person1#과 #Person2#는 {WHEN[i % 4]}에 {WHAT[i % 3]}을 합니다.",
    )
    for i in range(12)
]
SECTIONS: dict[str, Any] = {
    "data": {
        "source": "files", "files": ["train.csv"], "validation_files": ["val.csv"], "splits": {"test": 0.0},
        "tokenizer": {"name": "bpe", "vocabulary": 120},
    },
    "model": {
        "checkpoint": {
            "config": {
                "model_type": "bart", "width": 16, "layers": 1, "heads": 2, "feedforward": 16, "initial_std": 0.2,
            }
        },
        "dropout": 0.0,
    },
    "input": {"encoder_length": 48, "decoder_length": 24},
    "pretraining": {"encoder_length": 48, "decoder_length": 24},
}  # fmt: skip
#: Losses on validation, and scores of what is generated.
GOLDEN = {"pretrain": 4.31803, "train": 3.52330, "evaluate": 35.0, "decode-sweep": 37.769, "baseline": 11.1111}


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("dialogue", "summary"))
        writer.writerows(rows)


def run(store: Store, kind: str, parameters: dict[str, Any], inputs: list[Input]) -> tuple[Input, Result]:
    spec = SPEC.stages[kind]
    folder = store.run(f"{kind}-1").create()
    typed = {name: SPEC.sections[name].model_validate(SECTIONS[name]) for name in spec.sections}
    order = Order(
        key=kind,
        stage=kind,
        kind=kind,
        task="summarization",
        study="golden",
        profile="full",
        experiment="A",
        seed=1 if spec.seeded else None,
        sections={name: section.model_dump(mode="json") for name, section in typed.items()},
        parameters=spec.parameters.model_validate(parameters).model_dump(mode="json"),
        inputs=tuple(inputs),
        folder=str(folder.path),
        study_folder=str(store.root),
    )
    folder.write_order(order)
    assert execute(folder.order_path) == 0
    result = folder.read_result()
    assert result is not None
    return Input(reference=kind, stage=kind, kind=kind, key=kind, path=str(folder.path)), result


def test_every_stage_kind_gives_what_it_gave(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ROWS[:9])
    write(tmp_path / "val.csv", ROWS[9:])
    store = Store(tmp_path)
    optimizer, rouge = {"learning_rate": 0.01}, {"tokenizer": "words", "samples": 10}
    prepared, facts = run(store, "prepare", {}, [])
    assert (facts.facts["dialogues.train"], facts.facts["vocabulary"]) == (9, 99)
    before, pretrained = run(store, "pretrain", {"steps": 6, "batch": 3, "optimizer": optimizer}, [prepared])
    parts = {"all": {"mode": "lora", "rank": 2}}
    settings = {"steps": 20, "batch": 3, "optimizer": optimizer, "parts": parts, "label_smoothing": 0.1}
    trained, fine = run(store, "train", settings, [prepared, before])
    inputs = [prepared, before, trained]
    decoding = {"beams": 2, "max_new_tokens": 16}
    _, judged = run(store, "evaluate", {"split": "val", "decoding": decoding, "rouge": rouge}, inputs)
    sweep = {"sweep": {"beams": [1, 2]}, "decoding": {"max_new_tokens": 16}, "rouge": rouge}
    _, swept = run(store, "decode-sweep", sweep, inputs)
    _, lead = run(store, "baseline", {"split": "val", "turns": 1, "rouge": rouge}, [prepared])
    found = {
        "pretrain": pretrained.metrics["val/loss"],
        "train": fine.metrics["val/loss"],
        "evaluate": judged.metrics["val/score"],
        "decode-sweep": swept.metrics["val/score"],
        "baseline": lead.metrics["val/score"],
    }
    assert found == pytest.approx(GOLDEN, rel=2e-3)
