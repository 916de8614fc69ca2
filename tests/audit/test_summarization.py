"""Each mistake of the summarisation log is named by its audit, and what is right is not."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablab.tasks.summarization.corpus import read_splits
from ablab.tasks.summarization.sections import Data

HEAD = """
name: toy
question: Does it matter?
task: summarization
seeds: [1, 2, 3]
defaults:
  data: {source: generated, size: 40%(data)s}
  model: {checkpoint: %(checkpoint)s%(model)s}
  input: {encoder_length: %(length)s, decoder_length: 32}
  pipeline:
    train: {steps: 10, precision: %(precision)s%(train)s}
    evaluate: {decoding: {max_new_tokens: 32}%(evaluate)s}
experiments:
  A: {}
  B: {pipeline: {train: {optimizer: {learning_rate: 1e-3}}}}
  lead: {pipeline: {train: null, evaluate: null, baseline: {method: lead}}}
comparisons:
  - {name: main, baseline: A, variants: [B], factor: pipeline.train.optimizer.learning_rate, metric: test/score,
     criterion: difference >= 0, controls: {fail: [lead]}}
"""


LORA = "parts: {all: {mode: lora}}"


def text(**change: Any) -> str:
    plain = {"data": "", "model": "", "train": "", "evaluate": "", "precision": "bf16", "length": 64}
    return HEAD % {**plain, "checkpoint": "google/mt5-small", **change}


def ids(lab: Any) -> set[str]:
    return {each.id for each in lab.findings() if each.checked and each.severity != "note"}


def test_a_sound_study_gets_no_finding_of_the_task(bench: Callable) -> None:
    assert ids(bench(text())) == {"hub-unresolved"}


@pytest.mark.parametrize(
    ("change", "id", "says"),
    [
        ({"precision": "fp16"}, "precision-overflows", r"trains mt5 in fp16.*65,504"),
        ({"model": ", accelerator: unsloth"}, "accelerator-cannot-apply", "never an encoder-decoder"),
        ({"model": ", kind: causal, accelerator: other"}, "accelerator-cannot-apply", "not part of the training step"),
        ({"train": f", {LORA[:-2]}, targets: [q, wi]}}}}"}, "adapter-target-missing", r"'wi'.*wi_0, wi_1"),
        ({"model": ", new_tokens: frozen", "train": f", {LORA}"}, "special-tokens-untrained", "15 tokens"),
        ({"train": ", schedule: {steps: 80}"}, "schedule-total-differs", "takes 10 steps.*made for 80.*hardly decays"),
        ({"train": ", schedule: {steps: 4}"}, "schedule-total-differs", "ends early"),
        ({"checkpoint": "gogamza/kobart-base-v2", "length": 1028}, "positions-exceeded", "1028 tokens.*1026 positions"),
        ({"checkpoint": "facebook/bart-base", "length": 1025}, "positions-exceeded", "1,025|1025"),
        (
            {"checkpoint": "{name: google/mt5-small, attention: flash_attention_2}"},
            "attention-cannot-apply",
            "flash attention, which mt5 does not have",
        ),
        ({"evaluate": ", rouge: {tokenizer: korea}"}, "rouge-tokenizer-unknown", "no ROUGE tokenizer 'korea'"),
    ],
)  # fmt: skip
def test_a_mistake_is_an_error_with_a_remedy(bench: Callable, change: dict[str, Any], id: str, says: str) -> None:
    import re

    found = bench(text(**change)).findings(id)
    assert {each.severity for each in found} == {"error"} and found[0].remedy
    assert re.search(says, found[0].message), found[0].message
    assert found[0].line is not None


@pytest.mark.parametrize(
    ("change", "id"),
    [
        ({"precision": "fp16", "checkpoint": "facebook/bart-base"}, "precision-overflows"),
        ({"train": ", parts: {all: {mode: lora, targets: [q, wi_0, attention]}}"}, "adapter-target-missing"),
        ({"model": ", new_tokens: frozen"}, "special-tokens-untrained"),
        ({"train": ", parts: {all: {mode: lora}}"}, "special-tokens-untrained"),
        ({"length": 4096}, "positions-exceeded"),
        ({"checkpoint": "gogamza/kobart-base-v2", "length": 1026}, "positions-exceeded"),
    ],
)
def test_what_is_right_is_not_named(bench: Callable, change: dict[str, Any], id: str) -> None:
    assert not [each for each in bench(text(**change)).findings(id) if each.checked]


def test_a_configuration_says_more_than_a_name(bench: Callable) -> None:
    config = "{config: {model_type: t5, feed_forward_proj: gated-gelu, width: 16}}"
    parts = ", parts: {all: {mode: lora, targets: [wi]}}"
    assert bench(text(checkpoint=config, train=parts)).findings("adapter-target-missing")
    plain = "{config: {model_type: t5, width: 16}}"
    assert not bench(text(checkpoint=plain, train=parts)).findings("adapter-target-missing")
    bart = "{config: {model_type: bart, positions: 48}}"
    assert "48 positions" in bench(text(checkpoint=bart)).findings("positions-exceeded")[0].message


def test_positions_of_an_unknown_model_are_not_checked(bench: Callable) -> None:
    lab = bench(text(checkpoint="someone/else"))
    assert [each.checked for each in lab.findings("positions-exceeded")] == [False, False]
    lab.probe("A", {"positions.limit": 32, "architecture": "else"})
    assert "A wants 64 tokens at once" in lab.findings("positions-exceeded")[0].message


def test_rows_that_a_probe_saw_untrained_are_named(bench: Callable) -> None:
    lab = bench(text())
    lab.probe("A", {"tokens.new": 15, "tokens.new_trained": 0})
    assert {each.subjects[0] for each in lab.findings("special-tokens-untrained")} >= {"A"}
    lab.probe("B", {"tokens.new": 15, "tokens.new_trained": 15})
    assert [each.subjects for each in lab.findings("special-tokens-untrained")] == [("A",)]


def test_a_schedule_of_the_right_total_is_fine_and_epochs_are_counted_from_the_data(bench: Callable) -> None:
    assert bench(text(train=", schedule: {steps: 10}")).findings("schedule-total-differs") == []
    epochs = text(train=", batch: 4, schedule: {steps: 120}").replace("steps: 10,", "epochs: 3,")
    lab = bench(epochs)
    assert [each.checked for each in lab.findings("schedule-total-differs")] == [False, False]
    lab.finish("A", stage="prepare", facts={"dialogues.train": 40})
    found = lab.findings("schedule-total-differs")
    assert found[0].evidence == {"steps": 30, "schedule.steps": 120}


def test_arms_that_decode_differently_are_named(bench: Callable) -> None:
    changed = text().replace("B: {pipeline: {train:", "B: {pipeline: {evaluate: {decoding: {beams: 4}}, train:")
    found = bench(changed).findings("decoding-differs")
    assert len(found) == 1 and "4 beams" in found[0].message
    swept = "B: {pipeline: {evaluate: {needs: [prepare, train, decode-sweep]}, decode-sweep: {sweep: {beams: [1, 4]}}}}"
    sweep = text().replace("B: {pipeline: {train: {optimizer: {learning_rate: 1e-3}}}}", swept)
    assert "swept: B" in bench(sweep).findings("decoding-differs")[0].message
    asked = sweep.replace(
        "factor: pipeline.train.optimizer.learning_rate", "factor: [pipeline.decode-sweep, pipeline.evaluate]"
    )
    assert bench(asked).findings("decoding-differs") == []
    short = bench(text(evaluate="").replace("max_new_tokens: 32", "max_new_tokens: 16"))
    assert short.findings("outputs-cut-short")[0].evidence == {"decoder_length": 32, "max_new_tokens": 16}


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("fname", "dialogue", "summary"))
        writer.writerows((str(i), *row) for i, row in enumerate(rows))


def files(tmp_path: Path, *, overlap: str = "") -> str:
    write(tmp_path / "train.csv", [("안녕하세요", "인사합니다."), ("오늘 뭐 해?", "계획을 묻습니다.")])
    write(tmp_path / "dev.csv", [("안녕하세요!" if overlap else "잘 가", "#Person1#이 인사합니다.")])
    more = f", overlap: {overlap}" if overlap else ""
    return text().replace(
        "{source: generated, size: 40}", f"{{source: files, files: [train.csv], validation_files: [dev.csv]{more}}}"
    )


def test_overlapping_files_are_an_error_before_anything_runs(bench: Callable, tmp_path: Path) -> None:
    found = bench(files(tmp_path, overlap="keep")).findings("dialogues-overlap")
    assert [(each.severity, each.evidence) for each in found] == [("error", {"train.val": 1})]
    assert bench(files(tmp_path, overlap="drop")).findings("dialogues-overlap") == []
    assert bench(files(tmp_path)).findings("dialogues-overlap") == []


def test_samples_times_epochs_for_steps_is_found_in_the_files_before_anything_runs(
    bench: Callable, tmp_path: Path
) -> None:
    def study(total: int) -> str:
        given = files(tmp_path).replace("validation_files: [dev.csv]", "splits: {validation: 0.2, test: 0.1}")
        write(tmp_path / "train.csv", [(f"안녕하세요 {i}", "인사합니다.") for i in range(40)])
        return given.replace("steps: 10, ", f"epochs: 6, batch: 4, schedule: {{steps: {total}}}, ")

    write(tmp_path / "train.csv", [(f"안녕하세요 {i}", "인사합니다.") for i in range(40)])
    data = Data(source="files", files=("train.csv",), splits={"validation": 0.2, "test": 0.1})
    rows = len(read_splits(data, revisions={}, folder=str(tmp_path))["train"])
    assert 20 < rows < 40
    found = bench(study(6 * rows)).findings("schedule-total-differs")
    assert found[0].evidence == {"steps": int(6 * rows / 4), "schedule.steps": 6 * rows}
    assert "hardly decays" in found[0].message
    assert bench(study(int(6 * rows / 4))).findings("schedule-total-differs") == []


def test_what_was_prepared_tells_overlap_too(bench: Callable) -> None:
    lab = bench(text())
    lab.finish("A", stage="prepare", facts={"overlaps": {"train.test": 3}})
    assert "3 in train and test" in lab.findings("dialogues-overlap")[0].message


def test_a_tokenizer_that_drops_the_text_is_an_error_for_korean_and_none_for_english(
    bench: Callable, tmp_path: Path
) -> None:
    study = files(tmp_path).replace("max_new_tokens: 32}", "max_new_tokens: 32}, rouge: {tokenizer: ascii}")
    found = bench(study).findings("rouge-tokenizer-drops-text")
    assert found and found[0].evidence["kept"] < 0.5
    english = bench(text(evaluate=", rouge: {tokenizer: ascii}"))
    english.finish("A", stage="prepare", facts={"letters.ascii_share": 0.99})
    assert english.findings("rouge-tokenizer-drops-text") == []
    measured = bench(text())
    measured.finish("A", stage="evaluate", facts={"rouge.kept": 0.1, "rouge.tokenizer": "korean"})
    assert "keeps 10%" in measured.findings("rouge-tokenizer-drops-text")[0].message


def test_a_control_that_never_trains_needs_no_budget(bench: Callable) -> None:
    assert bench(text()).findings("training-budget-differs") == []
