"""What single benchmarks do with the cases that other evaluations get wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablab.contract.failure import DataError
from ablab.tasks.vision_language.benchmarks.charts import mark_charxiv, read_binary
from ablab.tasks.vision_language.benchmarks.llava_wild import LLAVA_W, read_pair
from ablab.tasks.vision_language.benchmarks.mmvet import MMVET, read_score
from ablab.tasks.vision_language.benchmarks.protocol import Marked, Question
from tests.tasks.vision_language.benchmarks import official as files
from tests.tasks.vision_language.benchmarks.conftest import Bench


def test_always_answering_a_is_never_right_in_the_round(bench: Bench, tmp_path: Path) -> None:
    made = files.mmbench_en(tmp_path)
    found = bench.ask(lambda _: "A", {"mmbench-en": made.source})
    assert found.metrics["MMBench-EN"] == 0.0
    assert found.metrics["MMBench-EN/first"] == 50.0
    assert [len(chunk) for chunk in bench.asked] == [6]  # four rotations of one question, two of the other


def test_one_wrong_rotation_makes_a_question_wrong(bench: Bench, tmp_path: Path) -> None:
    made = files.mmbench_ko(tmp_path)
    found = bench.ask(lambda one: "B" if one.id == "3000241" else made.answers[one.id], {"mmbench-ko": made.source})
    assert found.metrics["MMBench-KO"] == 50.0
    assert (found.metrics["MMBench-KO/colour"], found.metrics["MMBench-KO/logic"]) == (0.0, 100.0)


def test_a_limit_keeps_all_rotations_of_a_question(bench: Bench, tmp_path: Path) -> None:
    made = files.mmbench_en(tmp_path)
    found = bench.ask(lambda one: made.answers[one.id], {"mmbench-en": {**made.source, "limit": 1}})
    assert [name[-3:] for chunk in bench.asked for name in chunk] == ["241"] * 4
    assert found.facts["benchmark.mmbench-en.questions"] == 1 and found.facts["benchmark.mmbench-en.of"] == 2


def test_a_rotated_row_of_a_table_takes_the_picture_of_the_row_it_names(bench: Bench, tmp_path: Path) -> None:
    made = files.mmbench_rotated(tmp_path)
    colours = []
    bench.ask(lambda one: str(colours.append(one.images[0].open().getpixel((0, 0)))), {"mmbench-en": made.source})
    assert colours == [(255, 0, 0), (255, 0, 0)]


def test_korean_questions_ask_in_korean(bench: Bench, tmp_path: Path) -> None:
    made = files.k_dtcbench(tmp_path)
    prompts = []
    bench.ask(lambda one: str(prompts.append(one.prompt)), {"k-dtcbench": made.source})
    assert prompts[0] == (
        "이 문서의 제목은?\nOptions: A: 보고서, B: 편지, C: 영수증, D: 표\n"
        "주어진 선택지 중 해당 옵션의 문자로 바로 답하세요."
    )


def test_scienceqa_asks_as_llava_does(bench: Bench, tmp_path: Path) -> None:
    made = files.scienceqa(tmp_path)
    prompts = []
    bench.ask(lambda one: str(prompts.append(one.prompt)), {"scienceqa": made.source})
    assert prompts[0] == (
        "Context: Look.\nIs it?\nA. yes\nB. no\nC. maybe\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_pope_reports_each_split_and_the_means(bench: Bench, tmp_path: Path) -> None:
    made = files.pope(tmp_path)

    def answer(one: Question) -> str:
        return "Yes" if one.group == "adversarial" else made.answers[one.id]

    found = bench.ask(answer, {"pope": made.source}).metrics
    assert found["POPE/adversarial/accuracy"] == 0.5 and found["POPE/adversarial/yes_ratio"] == 1.0
    assert found["POPE/adversarial/f1"] == pytest.approx(2 / 3)
    assert found["POPE/random/f1"] == found["POPE/popular/recall"] == 1.0
    assert found["POPE/accuracy"] == pytest.approx(2.5 / 3)


def test_textvqa_with_tokens_of_ocr_only_when_asked(bench: Bench, tmp_path: Path) -> None:
    made = files.textvqa(tmp_path)
    tokens = [{"image_id": f"003a8ae2ef43b90{i}", "ocr_tokens": ["DAKOTA", "DIGITAL"]} for i in range(2)]
    files.dump(tmp_path / "ocr.json", {"data": tokens})
    prompts: list[str] = []
    bench.ask(lambda one: str(prompts.append(one.prompt)), {"textvqa": made.source})
    assert "OCR" not in prompts[0]
    source = {**made.source, "options": {"ocr_file": "ocr.json"}}
    bench.ask(lambda one: str(prompts.append(one.prompt)), {"textvqa": source})
    assert "\nReference OCR token: DAKOTA, DIGITAL\n" in prompts[-1]


def test_a_split_without_answers_gives_files_and_no_number(bench: Bench, tmp_path: Path) -> None:
    made = files.vqav2(tmp_path)
    del made.source["answers"]
    found = bench.ask(lambda _: "Two!", {"vqav2": made.source})
    assert "VQAv2" not in found.metrics and found.facts["benchmark.vqav2.missing"] == 2
    sent = json.loads((bench.context.artifacts / "answers" / "vqav2_submission.json").read_text())
    assert sent == [{"question_id": 262148000, "answer": "2"}, {"question_id": 393225001, "answer": "2"}]


def test_mathvista_is_marked_by_precision_and_type(bench: Bench, tmp_path: Path) -> None:
    made = files.mathvista(tmp_path)
    found = bench.ask(lambda one: {"1": "1.3", "2": "(B)"}[one.id], {"mathvista": made.source})
    assert found.metrics["MathVista"] == 50.0
    assert found.facts["benchmark.mathvista.marked_by"] == "rule"


def test_a_missing_official_file_or_picture_is_named(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        bench.ask(lambda _: "x", {"gqa": {"questions": "nowhere.json"}})
    made = files.gqa(tmp_path)
    (tmp_path / "images" / "n235859.jpg").unlink()
    with pytest.raises(DataError, match=r"n235859\.jpg"):
        bench.ask(lambda _: "x", {"gqa": made.source})


def test_questions_of_the_same_id_are_refused(bench: Bench, tmp_path: Path) -> None:
    files.lines(tmp_path / "q.jsonl", [{"id": "a", "text": "x", "answer": "y"}] * 2)
    with pytest.raises(DataError, match="'a'"):
        bench.ask(lambda _: "x", {"questions": {"questions": "q.jsonl"}})


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"id": "a", "text": "x"}, "no field 'answer'"),
        ({"id": "a", "text": "x", "answer": "y", "scorer": "guess"}, "scorer is 'guess'"),
        ({"id": "a", "text": "x", "answer": "y", "scorer": "choice"}, "needs `choices`"),
        ({"id": "a", "text": "x", "answer": "y", "language": "fr"}, "language is 'fr'"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(bench: Bench, tmp_path: Path, row: dict, complaint: str) -> None:
    files.lines(tmp_path / "q.jsonl", [row])
    with pytest.raises(DataError, match=complaint) as error:
        bench.ask(lambda _: "x", {"questions": {"questions": "q.jsonl"}})
    assert error.value.detail["row"] == 1


@pytest.mark.parametrize(
    ("said", "score"),
    [("0.7", 0.7), ("1.0 (totally right)", 1.0), ("Correctness: 0.5", 0.5), ("1.5", None), ("perfect", None),
     ("0.55 | x", 0.55), ("10", None), ("", None)],
)  # fmt: skip
def test_mmvet_reads_a_score_from_0_to_1(said: str, score: float | None) -> None:
    assert read_score(said) == score


@pytest.mark.parametrize(
    ("said", "pair"),
    [
        ("8 7\nBecause", (8.0, 7.0)),
        ("8, 7.5", (8.0, 7.5)),
        ("8", None),
        ("8 7 6", None),
        ("11 7", None),
        ("-1 -1", None),
    ],
)
def test_llava_w_reads_two_scores_from_1_to_10(said: str, pair: tuple[float, float] | None) -> None:
    assert read_pair(said) == pair


@pytest.mark.parametrize(
    ("said", "score"),
    [('{"extracted_answer": "x", "score": 1}', 1.0), ('```json\n{"score": 0}\n```', 0.0), ('{"score": 0.5}', None),
     ('{"score": true}', None), ("1", None)],
)  # fmt: skip
def test_charxiv_reads_a_binary_score(said: str, score: float | None) -> None:
    assert read_binary(said) == score


@pytest.mark.parametrize(
    ("kind", "said", "answer", "right"),
    [
        (1, "P56962.", "P56962", True),
        (1, "The answer is ACC+", "ACC", False),
        (1, "Beta, alpha", "alpha, beta", True),
        (1, "alpha and beta", "alpha, beta", True),
        (1, "alpha", "alpha, beta", False),
        (2, "yes", "Yes", True),
        (2, "No, they do not", "No", False),  # a judge would take it
        (3, "The value is 0.50.", "0.5", True),
        (3, "0.51", "0.5", False),
        (4, "1,500", "1500", True),
        (4, "1.5e3", "1500", True),
        (4, "10^-2", "10^-2", True),
        (4, "", "5", False),
        (1, "", "x", False),
    ],
)
def test_charxiv_without_a_judge_is_marked_by_rule(kind: int, said: str, answer: str, right: bool) -> None:
    question = Question(id="q", prompt="?", answers=(answer,), extra={"kind": kind})
    assert mark_charxiv(question, said) == {"score": float(right)}


@pytest.mark.parametrize("answer", ["E", "AB", "nine"])
def test_an_answer_that_is_no_letter_of_an_option_is_named(bench: Bench, tmp_path: Path, answer: str) -> None:
    row = {"question": "Is it?", "A": "yes", "B": "no", "C": "nan", "D": "nan", "image": files.coded()}
    files.tsv(tmp_path / "q.tsv", [{"index": 7, **row, "answer": answer}])
    for key in ("mmbench-en", "mmstar"):
        with pytest.raises(DataError, match=f"its answer is '{answer.upper()}', of 2 options"):
            bench.ask(lambda _: "A", {key: {"questions": "q.tsv"}})


def test_a_withheld_letter_yields_no_number_and_a_small_one_counts(bench: Bench, tmp_path: Path) -> None:
    row = {"question": "Is it?", "A": "yes", "B": "no", "C": "nan", "D": "nan", "image": files.coded()}
    files.tsv(tmp_path / "withheld.tsv", [{"index": 7, **row, "answer": "nan"}])
    found = bench.ask(lambda _: "A", {"mmbench-en": {"questions": "withheld.tsv"}})
    assert "MMBench-EN" not in found.metrics and found.facts["benchmark.mmbench-en.missing"] == 2
    files.tsv(tmp_path / "small.tsv", [{"index": 7, **row, "answer": "b"}])
    found = bench.ask(lambda _: "no", {"mmbench-en": {"questions": "small.tsv"}})
    assert found.metrics["MMBench-EN"] == 100.0


def test_none_is_an_option_and_an_answer_like_others(bench: Bench, tmp_path: Path) -> None:
    row = {"question_id": "1", "question": "How many?", "choice_a": "One", "choice_b": "None", "choice_c": "Two",
           "choice_d": "Three", "answer": "D", "data_id": "1.png", "data_type": "image", "question_type_id": 1,
           }  # fmt: skip
    files.dump(tmp_path / "seed.json", {"questions": [row]})
    files.save(tmp_path / "1.png")
    prompts: list[str] = []
    found = bench.ask(lambda one: str(prompts.append(one.prompt)) and "D", {"seed-bench": {"questions": "seed.json"}})
    assert found.metrics["SEED-Bench"] == 100.0 and "A. One\nB. None\nC. Two\nD. Three" in prompts[0]
    # Several of them are no options: so some tables write nothing.
    two = {"index": 7, "question": "Is it?", "A": "yes", "B": "no", "C": "None", "D": "None", "answer": "B",
           "image": files.coded()}  # fmt: skip
    files.tsv(tmp_path / "two.tsv", [two])
    bench.ask(lambda _: "no", {"mmbench-en": {"questions": "two.tsv"}})
    assert bench.asked[-1] == ["7", "1000007"]
    table = {"index": "vwtq_1", "image": files.coded(), "question": "who?", "answer": "none", "split": "vwtq"}
    files.tsv(tmp_path / "wtq.tsv", [table])
    found = bench.ask(lambda _: "None", {"wtq": {"questions": "wtq.tsv"}})
    assert found.metrics["WTQ"] == 100.0


def marked(score: float | None, **more: object) -> Marked:
    question = Question(id="q", prompt="?", answers=("a",), extra={"capabilities": more.pop("capabilities", ())})
    marks = None if score is None else {"score": score, **more}
    return Marked(question=question, text="x", marks=marks)  # type: ignore[arg-type]


def test_llava_w_is_a_ratio_of_means_not_a_mean_of_ratios() -> None:
    found = LLAVA_W.combine([marked(0.4, reference=0.8), marked(0.6, reference=1.0)])
    assert found[""] == pytest.approx(100 * (4 + 6) / (8 + 10))


def test_mmvet_reports_by_capability() -> None:
    found = MMVET.combine([marked(1.0, capabilities=("ocr", "math")), marked(0.5, capabilities=("ocr",))])
    assert found == {"": 75.0, "ocr": 75.0, "math": 100.0}
