"""Counts over rows against hand counts and a plain loop; subsets against what was asked for."""

from __future__ import annotations

import gzip
import json
import statistics
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.contract.failure import AblabError
from ablab.contract.tables import Balance, Fields
from ablab.data.m2kr import is_missing
from ablab.data.tables import parts as parts_module
from ablab.data.tables.choose import balance, even_quotas, filter_rows
from ablab.data.tables.compare import as_comparison, compare
from ablab.data.tables.compare import evaluation as compared
from ablab.data.tables.describe import as_json, describe, evaluation, lengths_of, repeats
from ablab.data.tables.parts import parts_of, rows_of
from ablab.data.tables.roles import BUCKETS, as_list, question_word

ROWS = [
    {"data_id": "a", "question": "What is this?", "image_path": "1.png", "answer": ["x"], "passage_id": ["p1", "p2"],
     "passage_text": ["one", "three"], "passage_image_path": ["NA", "q.png"]},
    {"data_id": "b", "question": "Is it red?", "image_path": "NA", "answer": [], "passage_id": "p1",
     "passage_text": "one", "passage_image_path": None},
    {"data_id": "c", "question": "이것은 무엇인가요?", "image_path": "1.png", "answer": ["x", "y"],
     "passage_id": [f"p{i}" for i in range(12)], "passage_text": ["t"] * 12, "passage_image_path": ["NA"] * 12},
    {"data_id": "c", "question": None, "image_path": "", "passage_id": [], "passage_text": [],
     "passage_image_path": []},
    {"data_id": "a", "question": "What is this?", "image_path": "1.png", "answer": ["x"], "passage_id": ["p1", "p2"],
     "passage_text": ["one", "three"], "passage_image_path": ["NA", "q.png"]},
]  # fmt: skip


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def hand(tmp_path):
    return write(tmp_path / "hand.jsonl", ROWS)


def test_a_file_counted_by_hand(hand):
    found = as_json(describe([hand]))
    assert found["rows"] == 5 and found["bytes"] == hand.stat().st_size
    assert found["candidates"] == {"0": 1, "1": 1, "2-3": 2, "4-5": 0, "6-10": 0, "11+": 1}
    assert found["question_words"] == {"what": 2, "yes/no": 1, "무엇": 1, "none": 1}
    fields = found["fields"]
    assert fields["answer"] == {
        "present": 4, "absent": 1, "types": {"list": 3}, "missing": {"empty list": 1}, "missing_share": 0.4,
        "entries": 4, "entries_missing": 0, "rows_with_missing_entries": 0,
    }  # fmt: skip
    assert fields["image_path"]["missing"] == {'"NA"': 1, "empty text": 1}
    assert fields["passage_id"]["types"] == {"text": 1, "list": 3}
    images = fields["passage_image_path"]
    assert images["missing"] == {"null": 1, "empty list": 1, "all entries missing": 1}
    assert (images["entries"], images["entries_missing"], images["rows_with_missing_entries"]) == (16, 14, 3)
    assert found["sides"] == {
        "question": 4, "image": 3, "question and image": 3, "a passage with text": 4, "a passage with image": 2,
        "a passage with both": 2, "both sides with text and image": 2,
    }  # fmt: skip
    assert found["repeats"]["ids"] == {"values": 5, "distinct": 3, "most": 2}
    assert found["repeats"]["identical rows"] == {"values": 5, "distinct": 4, "most": 2}
    assert found["repeats"]["question and image"] == {"values": 5, "distinct": 4, "most": 2}
    assert found["repeats"]["candidate passages"] == {"values": 17, "distinct": 12, "most": 4}
    lengths = found["lengths"]["passage, characters"]
    assert (lengths["count"], lengths["least"], lengths["most"], lengths["median"]) == (17, 1, 5, 1)


VALUES = st.one_of(
    st.none(), st.sampled_from(["", "NA", " NA ", "what", "which one", "is it", "x", "왜"]), st.integers(0, 3)
)
TEXTS = st.one_of(VALUES, st.lists(st.one_of(st.none(), st.sampled_from(["NA", "", "t", "longer"])), max_size=4))
ROW = st.fixed_dictionaries(
    {"passage_id": TEXTS},
    optional={
        "question": VALUES,
        "image_path": VALUES,
        "passage_text": TEXTS,
        "passage_image_path": TEXTS,
        "n": VALUES,
    },
)


@given(st.lists(ROW, min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_counts_are_those_of_a_plain_loop(tmp_path_factory, rows):
    path = write(tmp_path_factory.getbasetemp() / "property.jsonl", rows)
    found = as_json(describe([path]))
    buckets: Counter[str] = Counter()
    sides: Counter[str] = Counter()
    ids: list[str] = []
    for row in rows:
        value = row["passage_id"]
        count = len(value) if isinstance(value, list) else int(not is_missing(value))
        buckets[next(name for name, most in BUCKETS if count <= most)] += 1
        ids += map(str, as_list(value))
        texts, images = (as_list(row.get(name)) for name in ("passage_text", "passage_image_path"))
        asked, seen = (not is_missing(row.get(name)) for name in ("question", "image_path"))
        both = any(not is_missing(a) and not is_missing(b) for a, b in zip(texts, images, strict=False))
        sides["question"] += asked
        sides["image"] += seen
        sides["question and image"] += asked and seen
        sides["a passage with text"] += any(not is_missing(text) for text in texts)
        sides["a passage with image"] += any(not is_missing(image) for image in images)
        sides["a passage with both"] += both
        sides["both sides with text and image"] += both and asked and seen
    assert {name: count for name, count in found["candidates"].items() if count} == dict(buckets)
    assert found["sides"] == dict(sides)
    if ids:
        most = Counter(ids).most_common(1)[0][1]
        assert found["repeats"]["candidate passages"] == {"values": len(ids), "distinct": len(set(ids)), "most": most}
    for name in {name for row in rows for name in row}:
        having = [row[name] for row in rows if name in row]
        gone = sum(is_missing(v) or v == [] or (isinstance(v, list) and all(map(is_missing, v))) for v in having)
        assert found["fields"][name]["missing_share"] == pytest.approx((len(rows) - len(having) + gone) / len(rows))
        entries = [entry for v in having if isinstance(v, list) for entry in v]
        assert found["fields"][name]["entries"] == len(entries)
        assert found["fields"][name]["entries_missing"] == sum(map(is_missing, entries))
    if any("question" in row for row in rows):
        words = Counter("none" if is_missing(q := row.get("question")) else question_word(str(q)) for row in rows)
        assert found["question_words"] == dict(words)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_lengths_are_those_of_the_list(values):
    found = lengths_of(Counter(values))
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.median == statistics.median_low(values)
    assert found.p95 == sorted(values)[int(np.ceil(0.95 * len(values))) - 1]
    assert (found.least, found.most, found.count) == (min(values), max(values), len(values))


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("What is it", "what"), ("In which year?", "which"), ("Is it what?", "yes/no"),
        ("이것은 어떤 종류인가요?", "어떤"), ("이것을 뭐라고 부르나요?", "무엇"), ("name it", "other"),
        ("whatever", "other"), (" ", "none"), (None, "none"),
    ],
)  # fmt: skip
def test_question_words(question, word):
    assert question_word(question) == word


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=30), st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_parts_hold_every_line_once(tmp_path_factory, lines, size):
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    rows = [{"line": line.hex()} for line in lines]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = [row for part in parts_of([path], size=size) for row, _ in rows_of(part)]
    assert found == rows


def test_processes_count_as_one(tmp_path, monkeypatch):
    rows = [{**ROWS[i % 5], "data_id": str(i % 700)} for i in range(3000)]
    path = write(tmp_path / "many.jsonl", rows)
    alone = describe([path])
    monkeypatch.setattr(parts_module, "PART_BYTES", 60_000)
    monkeypatch.setattr(parts_module, "_ALONE", 1)
    seen: list[int] = []
    several = describe([path], processes=2, done=seen.append)
    assert as_json(several) == as_json(alone)
    assert sum(seen) == path.stat().st_size and len(seen) > 5
    wanted = Balance(files=(str(path),), strata=("candidates",), rows=100)
    one, two = (balance(wanted, tmp_path / f"{n}.jsonl", processes=n) for n in (1, 2))
    assert one == two and read(tmp_path / "1.jsonl") == read(tmp_path / "2.jsonl")


def test_parquet_and_compressed_files_say_the_same(tmp_path):
    rows = [{**row, "passage_id": as_list(row["passage_id"])} for row in ROWS]
    rows = [{**row, "passage_text": as_list(row["passage_text"])} for row in rows]
    rows = [
        {**row, "passage_image_path": as_list(row["passage_image_path"]), "answer": row.get("answer")} for row in rows
    ]
    plain = write(tmp_path / "a.jsonl", rows)
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    table = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table, row_group_size=2)
    found = [as_json(describe([path])) for path in (plain, packed, table)]
    assert found[0] == found[1]
    for one in found:
        one.pop("bytes")
    assert found[0] == found[2]


def test_two_sets_beside_each_other(tmp_path, hand):
    part = write(tmp_path / "part.jsonl", [ROWS[0], ROWS[2], {"data_id": "new", "question": "why?"}])
    first, second = compare([hand], [part])
    found = as_comparison(first, second, names=("all", "part"))
    assert found["rows_ratio"] == 3 / 5
    assert found["overlap"]["ids"] == {"first": 3, "second": 3, "both": 2}
    assert found["overlap"]["candidate passages"] == {"first": 12, "second": 12, "both": 12}
    tables = {table.name: table for table in compared(first, second, names=("all", "part")).tables}
    shares = {row[0]: row[1:] for row in tables["candidates"].rows}
    assert shares["11+"] == (1, 0.2, 1, 1 / 3, pytest.approx(100 * (1 / 3 - 0.2)))
    missing = {row[0]: row for row in tables["missing"].rows}
    assert missing["passage_image_path"][1] == 3 and missing["passage_image_path"][3] == 2


def test_the_report_gets_tables_and_histograms(hand):
    shown = evaluation(describe([hand]), name="hand")
    tables = {table.name: table for table in shown.tables}
    assert set(tables) == {"schema", "candidates", "question words", "sides", "lengths", "duplicates"}
    assert all(len(row) == len(table.columns) for table in shown.tables for row in table.rows)
    for distribution in shown.distributions:
        assert len(distribution.edges) == len(distribution.counts) + 1
        assert (
            sum(distribution.counts)
            == tables["lengths"].rows[[r[0] for r in tables["lengths"].rows].index(distribution.name)][1]
        )


def test_fields_of_ones_own(tmp_path):
    path = write(tmp_path / "own.jsonl", [{"text": "who?", "docs": ["a", "b"]}, {"text": "how?", "docs": []}])
    found = as_json(describe([path], fields=Fields(question="text", passage_ids="docs")))
    assert found["question_words"] == {"who": 1, "how": 1} and found["candidates"]["2-3"] == 1
    assert as_json(describe([path]))["candidates"] == {}
    with pytest.raises(AblabError, match=r"fields.question is 'txt'.*it has 'text'"):
        describe([path], fields=Fields(question="txt"))


def test_both_sides_with_text_and_image(tmp_path, hand):
    kept = filter_rows([hand], tmp_path / "kept.jsonl")
    assert (kept.rows, kept.kept, kept.candidates, kept.candidates_kept) == (5, 2, 17, 2)
    assert kept.lacking == {"image": 1, "passage-text and passage-image": 1, "question": 1}
    for row in read(tmp_path / "kept.jsonl"):
        assert row == {**ROWS[0], "passage_id": ["p2"], "passage_text": ["three"], "passage_image_path": ["q.png"]}
    less = filter_rows([hand], tmp_path / "less.jsonl", require=("question",))
    assert less.kept == 4 and read(tmp_path / "less.jsonl") == [ROWS[0], ROWS[1], ROWS[2], ROWS[4]]


def test_a_pool_says_which_candidates_have_an_image(tmp_path):
    hub = {"question_id": "a", "question": "what?", "img_path": "1.png", "pos_item_ids": ["p", "q"]}
    table = tmp_path / "hub.parquet"
    rows = [{**hub, "pos_item_contents": ["x", "y"]}, {**hub, "pos_item_ids": ["q"], "pos_item_contents": ["y"]}]
    pq.write_table(pa.Table.from_pylist(rows), table)
    pool = write(
        tmp_path / "pool.jsonl",
        [{"passage_id": "p", "passage_content": "x", "img_path": "i"}, {"passage_id": "q", "passage_content": "y"}],
    )
    with pytest.raises(AblabError, match=r"passage-image is required.*name the pool"):
        filter_rows([table], tmp_path / "out.jsonl")
    kept = filter_rows([table], tmp_path / "out.parquet", passages=[pool])
    assert kept.kept == 1
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [
        {**hub, "pos_item_ids": ["p"], "pos_item_contents": ["x"]}
    ]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.data())
@settings(max_examples=120, deadline=None)
def test_quotas_are_as_equal_as_the_strata_allow(counts, data):
    wanted = data.draw(st.integers(0, sum(counts)))
    quotas = even_quotas(np.array(counts), wanted)
    assert quotas.sum() == wanted and (quotas <= counts).all()
    short = [q for q, count in zip(quotas, counts, strict=True) if q < count]
    full = [q for q, count in zip(quotas, counts, strict=True) if q == count]
    assert not short or max(short) - min(short) <= 1
    assert not short or not full or max(full) <= max(short) + 1, "only small strata are taken whole"


def test_a_draw_keeps_the_order_and_repeats_for_its_seed(tmp_path):
    rows = [{"data_id": i, "kind": "abc"[min(2, i % 10 // 4)], "passage_id": ["p"] * (i % 4)} for i in range(1000)]
    path = write(tmp_path / "rows.jsonl", rows)

    def drawn(name, **options):
        wanted = Balance(files=(str(path),), **options)
        return balance(wanted, tmp_path / f"{name}.jsonl"), read(tmp_path / f"{name}.jsonl")

    made, kept = drawn("one", strata=("kind",), rows=90)
    assert made.strata == {"a": (400, 30), "b": (400, 30), "c": (200, 30)}
    assert Counter(row["kind"] for row in kept) == {"a": 30, "b": 30, "c": 30}
    assert [row["data_id"] for row in kept] == sorted(row["data_id"] for row in kept)
    assert all(row == rows[row["data_id"]] for row in kept)
    assert drawn("same", strata=("kind",), rows=90)[1] == kept
    assert drawn("other", strata=("kind",), rows=90, seed=1)[1] != kept
    crossed, _ = drawn("crossed", strata=("kind", "candidates"), per_stratum=7)
    assert list(crossed.strata)[:3] == ["a, 0", "a, 1", "a, 2-3"] and set(crossed.strata.values()) >= {(100, 7)}
    shared, some = drawn("share", strata=("candidates",), share=0.1)
    assert shared.taken == len(some) == 100


def test_draws_are_fair(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"data_id": i, "passage_id": "p"} for i in range(20)])
    times: Counter[int] = Counter()
    for seed in range(200):
        balance(Balance(files=(str(path),), rows=5, seed=seed), tmp_path / "out.jsonl")
        times.update(row["data_id"] for row in read(tmp_path / "out.jsonl"))
    assert len(times) == 20 and all(25 < count < 80 for count in times.values()), "each comes 50 times on average"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n{"a": 3}\n', r"x.jsonl, line 2: not JSON"),
        (b'{"a": 1}\n[1]\n', r"x.jsonl, line 2: a JSON list, expected an object"),
        (b"", r"x.jsonl: it has no rows|no file: it has no rows"),
    ],
)
def test_damage_is_named_by_line(tmp_path, content, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(AblabError, match=message):
        describe([path])


def test_damage_is_named_by_line_in_a_later_part(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n' * 100 + b"oops\n")
    for size in (7, 9, 50, 1000):
        with pytest.raises(AblabError, match=r"line 101: not JSON"):
            for part in parts_of([path], size=size):
                list(rows_of(part))


def test_mistakes_are_named(tmp_path, hand):
    with pytest.raises(AblabError, match="no such file"):
        describe([tmp_path / "none.jsonl"])
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(AblabError, match="not a JSONL or parquet file"):
        describe([tmp_path / "a.csv"])
    (tmp_path / "a.parquet").write_text("x")
    with pytest.raises(AblabError, match="not a readable parquet file"):
        describe([tmp_path / "a.parquet"])
    with pytest.raises(AblabError, match=r"9 are wanted, .* has 5"):
        balance(Balance(files=(str(hand),), rows=9), tmp_path / "o.jsonl")
    with pytest.raises(AblabError, match="no field 'kindd'"):
        balance(Balance(files=(str(hand),), rows=2, strata=("kindd",)), tmp_path / "o.jsonl")
    with pytest.raises(AblabError, match=r"written as .jsonl or .parquet"):
        filter_rows([hand], tmp_path / "o.csv")
    with pytest.raises(AblabError, match="do not fit one parquet table"):
        filter_rows([hand], tmp_path / "o.parquet", require=("question",))
    with pytest.raises(ValueError, match="one of rows, share and per_stratum"):
        Balance(files=("a",), rows=2, share=0.5)
    assert not list(tmp_path.glob(".tmp-*")) and not (tmp_path / "o.parquet").exists()
    assert repeats(b"").values == 0
