"""Tiny files in the official format of each benchmark, as its authors publish it, with the right answers by id."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


@dataclass
class Official:
    key: str
    source: dict[str, Any]
    answers: dict[str, str]
    full: float = 100.0
    metric: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def picture(colour: str = "red", form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (12, 8), colour).save(stream, form)
    return stream.getvalue()


def coded(colour: str = "red") -> str:
    return base64.b64encode(picture(colour)).decode()


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    form = "JPEG" if path.suffix in (".jpg", ".jpeg") else "PNG"
    path.write_bytes(picture(form=form))


def dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def tsv(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])
    text = "\t".join(columns) + "\n"
    text += "".join("\t".join(str(row.get(column, "")) for column in columns) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def gqa(folder: Path) -> Official:
    questions = {
        "201307251": {
            "imageId": "n161313", "question": "Is it red?", "answer": "yes", "isBalanced": True,
            "fullAnswer": "Yes, it is.",
            "types": {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"},
        },
        "201640614": {
            "imageId": "n235859", "question": "Who is wearing a shirt?", "answer": "girl", "isBalanced": True,
            "types": {"structural": "query", "semantic": "rel", "detailed": "relS"},
        },
    }  # fmt: skip
    dump(folder / "testdev_balanced_questions.json", questions)
    for name in ("n161313", "n235859"):
        save(folder / "images" / f"{name}.jpg")
    source = {"questions": "testdev_balanced_questions.json", "images": "images"}
    return Official("gqa", source, {"201307251": "Yes.", "201640614": "Girl"})


def gqa_llava(folder: Path) -> Official:
    made = gqa(folder)
    end = "\nAnswer the question using a single word or phrase."
    rows = [
        {"question_id": "201307251", "image": "n161313.jpg", "text": f"Is it red?{end}", "category": "default"},
        {"question_id": "201640614", "image": "n235859.jpg", "text": f"Who is wearing a shirt?{end}"},
    ]
    lines(folder / "llava_gqa_testdev_balanced.jsonl", rows)
    made.source |= {"answers": made.source["questions"], "questions": "llava_gqa_testdev_balanced.jsonl"}
    return made


def scienceqa(folder: Path) -> Official:
    problem = {"choices": ["yes", "no", "maybe"], "subject": "natural science", "split": "test", "grade": "grade2"}
    problems = {
        "5": {**problem, "question": "Is it?", "answer": 1, "hint": "Look.", "image": "image.png"},
        "6": {**problem, "question": "No picture", "answer": 0, "hint": "", "image": None},
        "9": {**problem, "question": "Or is it?", "answer": 2, "hint": "", "image": "image.png"},
        "1": {**problem, "question": "Trained", "answer": 0, "hint": "", "image": "image.png", "split": "train"},
    }
    dump(folder / "scienceqa" / "problems.json", problems)
    dump(folder / "scienceqa" / "pid_splits.json", {"train": ["1"], "test": ["5", "6", "9"]})
    for name in ("5", "9"):
        save(folder / "scienceqa" / "images" / "test" / name / "image.png")
    return Official("scienceqa", {"questions": "scienceqa"}, {"5": "B", "9": "The answer is C."}, metric="SQA")


def _vqa(folder: Path, answer: str) -> list[dict[str, Any]]:
    return [{"answer": answer, "answer_id": i + 1, "answer_confidence": "yes"} for i in range(10)]


def vqav2(folder: Path) -> Official:
    questions = [
        {"image_id": 262148, "question": "How many?", "question_id": 262148000},
        {"image_id": 393225, "question": "What colour?", "question_id": 393225001},
    ]
    notes = [
        {"question_id": 393225001, "answer_type": "other", "answers": _vqa(folder, "the red"), "image_id": 393225},
        {"question_id": 262148000, "answer_type": "number", "answers": _vqa(folder, "two"), "image_id": 262148},
    ]
    dump(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"data_subtype": "val2014", "questions": questions})
    dump(folder / "v2_mscoco_val2014_annotations.json", {"data_subtype": "val2014", "annotations": notes})
    for one in questions:
        save(folder / "val2014" / f"COCO_val2014_{one['image_id']:012d}.jpg")
    source = {
        "questions": "v2_OpenEnded_mscoco_val2014_questions.json",
        "answers": "v2_mscoco_val2014_annotations.json",
        "images": "val2014",
    }
    return Official("vqav2", source, {"262148000": "2", "393225001": "Red!"}, metric="VQAv2")


def textvqa(folder: Path) -> Official:
    answers = ["nous les gosses", *["dakota"] * 8, "clos culombu"]
    rows = [
        {"question_id": 34602 + i, "image_id": f"003a8ae2ef43b90{i}", "question": "What is the brand of this camera?",
         "answers": answers, "set_name": "val"}
        for i in range(2)
    ]  # fmt: skip
    dump(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": rows})
    for row in rows:
        save(folder / "train_images" / f"{row['image_id']}.jpg")
    source = {"questions": "TextVQA_0.5.1_val.json", "images": "train_images"}
    return Official("textvqa", source, {"34602": "Dakota", "34603": "dakota."}, metric="TextVQA")


def textvqa_llava(folder: Path) -> Official:
    made = textvqa(folder)
    end = "\nAnswer the question using a single word or phrase."
    rows = [
        {
            "question_id": f"003a8ae2ef43b90{i}", "image": f"003a8ae2ef43b90{i}.jpg", "category": "default",
            "text": f"What is the brand of this camera?\nReference OCR token: DAKOTA, DIGITAL{end}",
        }
        for i in range(2)
    ]  # fmt: skip
    lines(folder / "llava_textvqa_val_v051_ocr.jsonl", rows)
    made.source |= {"answers": made.source["questions"], "questions": "llava_textvqa_val_v051_ocr.jsonl"}
    return made


def vizwiz(folder: Path) -> Official:
    rows = [
        {"image": f"VizWiz_val_0000000{i}.jpg", "question": "What is this?", "answer_type": "other", "answerable": 1,
         "answers": [{"answer": "basil", "answer_confidence": "yes"}] * 10}
        for i in range(2)
    ]  # fmt: skip
    dump(folder / "val.json", rows)
    for row in rows:
        save(folder / "val" / row["image"])
    names = {row["image"]: "Basil" for row in rows}
    return Official("vizwiz", {"questions": "val.json", "images": "val"}, names, metric="VizWiz")


def mmvet(folder: Path) -> Official:
    items = {
        "v1_0": {"imagename": "v1_0.png", "question": "What is x?", "answer": "-1<AND>-5", "imagesource": "web",
                 "capability": ["ocr", "math"]},
        "v1_1": {"imagename": "v1_1.png", "question": "Who?", "answer": "me", "capability": ["rec"]},
    }  # fmt: skip
    dump(folder / "mm-vet.json", items)
    for one in items.values():
        save(folder / "images" / str(one["imagename"]))
    source = {"questions": "mm-vet.json", "images": "images"}
    return Official("mmvet", source, {"v1_0": "x = -1 or -5", "v1_1": "me"}, metric="MMVet", extra={"judge": "1.0"})


def pope(folder: Path) -> Official:
    answers, name = {}, "COCO_val2014_000000016631.jpg"
    for split in ("random", "popular", "adversarial"):
        rows = [
            {"question_id": i + 1, "image": name, "text": f"Is there a {thing}?", "label": label}
            for i, (thing, label) in enumerate([("dog", "yes"), ("cat", "no"), ("car", "yes"), ("bus", "no")])
        ]  # fmt: skip
        lines(folder / "coco" / f"coco_pope_{split}.json", rows)
        answers |= {f"{split}-{row['question_id']}": str(row["label"]).capitalize() for row in rows}
    save(folder / "val2014" / name)
    return Official("pope", {"questions": "coco", "images": "val2014"}, answers, full=1.0, metric="POPE/accuracy")


def llava_w(folder: Path) -> Official:
    base = folder / "llava-bench-in-the-wild"
    rows = [
        {"question_id": 0, "image": "001.jpg", "category": "conv", "text": "What is the name?"},
        {"question_id": 1, "image": "001.jpg", "category": "detail", "text": "Describe it."},
    ]
    lines(base / "questions.jsonl", rows)
    lines(base / "context.jsonl", [{"id": "001", "image": "001.jpg", "caption": "A view of Diamond Head."}])
    gold = [{"question_id": i, "text": "Diamond Head", "answer_id": f"x{i}", "model_id": "gpt-4"} for i in range(2)]
    lines(base / "answers_gpt4.jsonl", gold)
    save(base / "images" / "001.jpg")
    source = {"questions": "llava-bench-in-the-wild"}
    return Official(
        "llava-w", source, {"0": "Diamond Head", "1": "A hill"}, metric="LLaVA-W", extra={"judge": "8 8\nok"}
    )


def _mmbench(folder: Path, key: str, **more: Any) -> Official:
    rows = [
        {"index": 241, "question": "Which?", "hint": "Look at it.", "A": "red", "B": "blue", "C": "green", "D": "black",
         "answer": "B", "category": "colour", "image": coded(), "source": "x", "l2-category": "y", "split": "dev"},
        {"index": 252, "question": "Is it?", "hint": "nan", "A": "yes", "B": "no", "C": "nan", "D": "nan",
         "answer": "A", "category": "logic", "image": coded("blue"), "source": "x", "l2-category": "y", "split": "dev"},
    ]  # fmt: skip
    tsv(folder / f"{key}.tsv", rows)
    answers = {str(241 + i * 1_000_000): "BADC"[i] for i in range(4)} | {"252": "A", "1000252": "B"}
    return Official(key, {"questions": f"{key}.tsv"}, answers, **more)


def mmbench_en(folder: Path) -> Official:
    return _mmbench(folder, "mmbench-en", metric="MMBench-EN")


def mmbench_ko(folder: Path) -> Official:
    return _mmbench(folder, "mmbench-ko", metric="MMBench-KO")


def mmbench_rotated(folder: Path) -> Official:
    row = {"hint": "nan", "C": "nan", "D": "nan", "category": "logic", "question": "Is it?"}
    rows = [
        {"index": 7, **row, "A": "yes", "B": "no", "answer": "B", "image": coded()},
        {"index": 1000007, **row, "A": "no", "B": "yes", "answer": "A", "image": "7"},
    ]
    tsv(folder / "rotated.tsv", rows)
    answers = {"7": "B", "1000007": "A"}
    return Official("mmbench-en", {"questions": "rotated.tsv"}, answers, metric="MMBench-EN")


def mmstar(folder: Path) -> Official:
    inline = "Which fits? \nOptions: A: Ruffled, B: Flat, C: Round, D: None"
    rows = {
        "index": [0, 1], "question": [inline, inline], "answer": ["A", "D"],
        "image": [picture(), picture()], "category": ["coarse perception"] * 2, "l2_category": ["image scene"] * 2,
        "meta_info": [{"source": "MMBench"}] * 2,
    }  # fmt: skip
    pq.write_table(pa.table(rows), folder / "mmstar.parquet")
    return Official("mmstar", {"questions": "mmstar.parquet"}, {"0": "Ruffled", "1": "(D)"}, metric="MMStar")


def seed_bench(folder: Path) -> Official:
    base = {"choice_a": "One", "choice_b": "Two", "choice_c": "Three", "choice_d": "Four", "question": "How many?"}
    rows = [
        {**base, "question_id": "101669", "answer": "A", "data_id": "1.jpg", "data_type": "image",
         "question_type_id": 1},
        {**base, "question_id": "101670", "answer": "D", "data_id": "2", "data_type": "image",
         "question_type_id": 5},
        {**base, "question_id": "200001", "answer": "D", "data_id": "v.mp4", "data_type": "video",
         "question_type_id": 12},
    ]  # fmt: skip
    dump(folder / "SEED-Bench.json", {"questions": rows, "question_type": {"Scene": 1, "Counting": 5}})
    save(folder / "image" / "1.jpg")
    (folder / "image" / "2").write_bytes(picture())
    source = {"questions": "SEED-Bench.json", "images": "image"}
    return Official("seed-bench", source, {"101669": "A.", "101670": "Four"}, metric="SEED-Bench")


def k_dtcbench(folder: Path) -> Official:
    rows = {
        "index": ["d1", "c1"], "question": ["이 문서의 제목은?", "가장 높은 값은?"], "choice_a": ["보고서", "10"],
        "choice_b": ["편지", "20"], "choice_c": ["영수증", "30"], "choice_d": ["표", "40"], "answer": ["A", "D"],
        "category": ["document", "chart"], "image": [{"bytes": picture(), "path": "x.png"}] * 2,
    }  # fmt: skip
    (folder / "dtc").mkdir()
    pq.write_table(pa.table(rows), folder / "dtc" / "test-00000-of-00001.parquet")
    return Official("k-dtcbench", {"questions": "dtc"}, {"d1": "정답: A", "c1": "40"}, metric="K-DTCBench")


def docvqa(folder: Path) -> Official:
    rows = [
        {"questionId": 49153, "question": "What is the date?", "image": "documents/pybv0228_81.png", "docId": 14281,
         "answers": ["1/8/93", "January 8"], "data_split": "val", "question_types": ["handwritten"]},
    ]  # fmt: skip
    dump(folder / "spdocvqa" / "val_v1.0.json", {"dataset_name": "docvqa", "data": rows})
    save(folder / "spdocvqa" / "documents" / "pybv0228_81.png")
    return Official("docvqa", {"questions": "spdocvqa/val_v1.0.json"}, {"49153": "january 8"}, metric="DocVQA")


def infovqa(folder: Path) -> Official:
    rows = [{"questionId": 98313, "question": "Which?", "image_local_name": "70502.jpeg", "answers": ["cat", "cats"]}]
    dump(folder / "infographicsVQA_val_v1.0.json", {"dataset_name": "infographicVQA", "data": rows})
    save(folder / "images" / "70502.jpeg")
    source = {"questions": "infographicsVQA_val_v1.0.json", "images": "images"}
    return Official("infovqa", source, {"98313": "Cats"}, metric="InfoVQA")


def chartqa(folder: Path) -> Official:
    base = folder / "ChartQA" / "test"
    dump(base / "test_human.json", [{"imgname": "1.png", "query": "How many?", "label": "14"}])
    dump(base / "test_augmented.json", [{"imgname": "1.png", "query": "Which?", "label": "Yes"}])
    save(base / "png" / "1.png")
    answers = {"human-1": "14.5", "augmented-1": "yes"}
    return Official("chartqa", {"questions": "ChartQA/test"}, answers, metric="ChartQA")


def charxiv(folder: Path) -> Official:
    rows = {
        "0": {"figure_id": 0, "query": "Which curve?", "answer": "P56962", "inst_category": 1, "subplot_loc": None},
        "3": {"figure_id": 3, "query": "What sum?", "answer": "0.25", "inst_category": 4},
    }
    dump(folder / "data" / "reasoning_val.json", rows)
    for name in rows:
        save(folder / "images" / f"{name}.jpg")
    source = {"questions": "data/reasoning_val.json", "images": "images"}
    judge = json.dumps({"extracted_answer": "P56962", "score": 1})
    return Official("charxiv", source, {"0": "P56962", "3": "0.25"}, metric="CharXiv", extra={"judge": judge})


def ocrbench(folder: Path) -> Official:
    rows = [
        {"dataset_name": "IIIT5K", "type": "Regular Text Recognition", "id": 0, "image_path": "IIIT5K/1.png",
         "question": "what is written in the image?", "answers": ["CENTRE"]},
        {"dataset_name": "HME100k", "type": "Handwritten Mathematical Expression Recognition", "id": 1,
         "image_path": "HME/2.png", "question": "Write the formula.", "answers": "\\frac { a } { b }"},
    ]  # fmt: skip
    dump(folder / "OCRBench" / "OCRBench.json", rows)
    for row in rows:
        save(folder / "OCRBench_Images" / str(row["image_path"]))
    source = {"questions": "OCRBench/OCRBench.json", "images": "OCRBench_Images"}
    return Official("ocrbench", source, {"0": "It says centre.", "1": "\\frac{a}{b}"}, full=1000.0, metric="OCRBench")


def _tablevqa(folder: Path) -> None:
    rows = [
        {"index": "vwtq_1", "image": coded(), "question": "which cities?", "answer": "Rome|Oslo", "split": "vwtq"},
        {"index": "vwtq_2", "image": coded(), "question": "how many?", "answer": "12", "split": "vwtq_syn"},
        {"index": "vtabfact_1", "image": coded(), "question": "they won 6 games", "answer": "1", "split": "vtabfact"},
        {"index": "vtabfact_2", "image": coded(), "question": "they lost", "answer": "0", "split": "vtabfact"},
        {"index": "fin_1", "image": coded(), "question": "sales?", "answer": "$3", "split": "fintabnetqa"},
    ]
    tsv(folder / "TableVQABench.tsv", rows)


def wtq(folder: Path) -> Official:
    _tablevqa(folder)
    answers = {"vwtq_1": "Oslo||Rome", "vwtq_2": "12.0"}
    return Official("wtq", {"questions": "TableVQABench.tsv"}, answers, metric="WTQ")


def tabfact(folder: Path) -> Official:
    _tablevqa(folder)
    answers = {"vtabfact_1": "True", "vtabfact_2": "it is false"}
    return Official("tabfact", {"questions": "TableVQABench.tsv"}, answers, metric="TabFact")


def mathvista(folder: Path) -> Official:
    common = {"unit": None, "metadata": {"task": "figure question answering", "split": "testmini"}}
    problems = {
        "1": {**common, "question": "How far?", "image": "images/1.jpg", "choices": None, "precision": 1.0,
              "answer": "1.2",
              "question_type": "free_form", "answer_type": "float", "query": "Hint: one decimal.\nQuestion: How far?"},
        "2": {**common, "question": "Which?", "image": "images/2.jpg", "choices": ["cat", "dog"], "precision": None,
              "answer": "dog", "question_type": "multi_choice", "answer_type": "text"},
    }  # fmt: skip
    dump(folder / "MathVista" / "testmini.json", problems)
    for name in problems:
        save(folder / "MathVista" / "images" / f"{name}.jpg")
    answers = {"1": "It is 1.24 m far.", "2": "The answer is (B)."}
    return Official("mathvista", {"questions": "MathVista/testmini.json"}, answers, metric="MathVista")


def mathverse(folder: Path) -> Official:
    listed = "How long?\nChoices:\nA:2\nB:2√3\nC:√3\nD:2√2"
    meta = {"split": "testmini", "source": "GeoQA", "subject": "Plane Geometry", "subfield": "Length"}
    rows = [
        {"sample_index": "1", "problem_index": "1", "problem_version": "Text Dominant", "question": listed,
         "image": "images_version_1-4/1.png", "answer": "C", "question_type": "multi-choice", "metadata": meta,
         "query_wo": f"Please directly answer.\nQuestion: {listed}", "question_for_eval": listed},
        {"sample_index": "2", "problem_index": "1", "problem_version": "Vision Only", "question": "",
         "image": "images_version_5/2.png", "answer": "$x=3$", "question_type": "free-form", "metadata": meta,
         "query_wo": "Please directly answer.", "question_for_eval": "Solve it."},
    ]  # fmt: skip
    dump(folder / "testmini.json", rows)
    for row in rows:
        save(folder / "images" / str(row["image"]))
    source = {"questions": "testmini.json", "images": "images"}
    return Official("mathverse", source, {"1": "C", "2": "The answer is x = 3."}, metric="MathVerse")


def questions(folder: Path) -> Official:
    rows = [
        {"question_id": "a", "image": "a.png", "text": "What is it?", "answer": "cat", "category": "identity"},
        {"id": "b", "image": "a.png", "question": "무엇인가요?", "answers": ["고양이", "괭이"], "language": "ko"},
        {"id": "c", "images": ["a.png", "a.png"], "question": "Which?", "answer": "B", "choices": ["x", "y"],
         "scorer": "choice", "group": "choice"},
    ]  # fmt: skip
    lines(folder / "questions.jsonl", rows)
    save(folder / "a.png")
    answers = {"a": "Cat.", "b": "괭이", "c": "y"}
    return Official("questions", {"questions": "questions.jsonl"}, answers, metric="Questions")


OFFICIAL: dict[str, Callable[[Path], Official]] = {
    "gqa": gqa, "gqa@llava": gqa_llava, "scienceqa": scienceqa, "vqav2": vqav2, "textvqa": textvqa,
    "textvqa@llava": textvqa_llava, "vizwiz": vizwiz, "mmvet": mmvet, "pope": pope, "llava-w": llava_w,
    "mmbench-en": mmbench_en, "mmbench-ko": mmbench_ko, "mmbench-en@rotated": mmbench_rotated, "mmstar": mmstar,
    "seed-bench": seed_bench, "k-dtcbench": k_dtcbench, "docvqa": docvqa, "infovqa": infovqa, "chartqa": chartqa,
    "charxiv": charxiv, "ocrbench": ocrbench, "wtq": wtq, "tabfact": tabfact, "mathvista": mathvista,
    "mathverse": mathverse, "questions": questions,
}  # fmt: skip
