"""Tables counted by column against rows counted one by one: everything must be equal, whatever stands in a file."""

from __future__ import annotations

import gzip
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.contract.failure import AblabError
from ablab.contract.tables import SIDES, Balance, Fields
from ablab.data.tables import blocks as blocks_module
from ablab.data.tables.blocks import Parser, blocks_of
from ablab.data.tables.choose import balance, filter_rows
from ablab.data.tables.describe import as_json, roles_of
from ablab.data.tables.parts import parts_of, rows_of
from ablab.data.tables.roles import find_roles
from ablab.data.tables.scan import tally_part, told_apart
from ablab.data.tables.tally import merged, tally_rows
from ablab.data.tables.values import BLANKS, missing_texts

NINE = (
    "answer", "data_id", "dataset_id", "image_path", "instruction", "passage_id", "passage_image_path", "passage_text",
    "question",
)  # fmt: skip
WORDS = st.sampled_from([
    "", " ", "NA", " NA ", "NA\t", "\u3000", "\u00a0NA", "NAN", "Na", "N", "NA x", "x", "what is it", "How?", "is it",
    "왜 그런가요", "나무 NA", "\u2003x", "\U0001f600 smile", "a \"quote\": b", "}null", "] } {", "\\", "\u0000", "\x1c",
    "2020-01-01", "2020-01-01 10:00:00", "question", "1", "1.0", "None", "e\u0301", "\x7f",
])  # fmt: skip
SCALARS = st.one_of(
    st.none(), WORDS, WORDS, st.integers(-3, 3), st.sampled_from([1.5, 2**63, 2**70, -(2**63), 1e300]), st.booleans()
)
LISTS = st.one_of(
    st.lists(st.one_of(st.none(), WORDS), max_size=4), st.lists(SCALARS, max_size=3), st.lists(st.none(), max_size=2)
)
NESTED = st.sampled_from([{}, {"question": 1}, {"a": {"b": None}}, [{}], [[1], None], [None, {"b": 1}], [[]]])
ABSENT = object()
#: Columns as files have them: of one kind, of lists, or of anything.
KINDS = [
    WORDS, st.one_of(st.none(), WORDS), st.one_of(st.just(ABSENT), st.none(), WORDS),
    st.lists(WORDS, max_size=4),
    st.one_of(st.none(), st.just(ABSENT), st.lists(st.one_of(st.none(), WORDS), max_size=3)),
    st.lists(st.none(), max_size=2), st.none(), st.just(ABSENT), st.integers(-3, 3), st.booleans(), st.floats(-2, 2),
    st.one_of(st.none(), st.integers()), SCALARS, LISTS, st.one_of(SCALARS, LISTS, st.just(ABSENT)),
    st.one_of(NESTED, st.none()),
]  # fmt: skip


@st.composite
def files(draw):
    """Rows of M2KR's fields, most columns of one kind, and how they are written."""
    kinds = {name: draw(st.sampled_from(KINDS[:7] if draw(st.integers(0, 9)) else KINDS)) for name in NINE}
    count = draw(st.integers(1, 9))
    rows = [{name: value for name in NINE if (value := draw(kinds[name])) is not ABSENT} for _ in range(count)]
    compact, ascii_only = draw(st.booleans()), draw(st.booleans())
    separators = draw(st.sampled_from([(",", ":"), (" , ", " : ")])) if compact else None
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\n\n", " \n"]))
    text = end.join(json.dumps(row, ensure_ascii=ascii_only, separators=separators) for row in rows)
    bom = b"\xef\xbb\xbf" * draw(st.integers(0, 1))
    return bom + text.encode("utf-8", "surrogatepass") + draw(st.sampled_from([b"", b"\n", b"\n \n"]))


def counted_by_rows(path, roles, size):
    return merged((tally_rows(rows_of(part), roles) for part in parts_of([path], size=size)), roles)


def counted_by_columns(path, roles, size):
    return merged((tally_part(part, roles) for part in parts_of([path], size=size)), roles)


def same(one, other):
    """All counts and hashes, in their order."""
    assert as_json(one) == as_json(other)
    assert list(as_json(one)["question_words"]) == list(as_json(other)["question_words"])
    assert one.fields == other.fields and one.sides == other.sides
    assert one.candidates == other.candidates and one.words == other.words
    assert {name: +counts for name, counts in one.lengths.items() if +counts} == {
        name: +counts for name, counts in other.lengths.items() if +counts
    }
    assert one.hashes == other.hashes


@given(files(), st.integers(1, 900), st.sampled_from([1, 200, 1 << 20]))
@settings(max_examples=150, deadline=None)
def test_columns_say_what_rows_say(tmp_path_factory, content, size, block):
    path = tmp_path_factory.getbasetemp() / "columns.jsonl"
    path.write_bytes(content)
    roles = roles_of(parts_of([path]), Fields())
    before = blocks_module.BLOCK_BYTES
    blocks_module.BLOCK_BYTES = block
    try:
        same(counted_by_columns(path, roles, size), counted_by_rows(path, roles, size))
    finally:
        blocks_module.BLOCK_BYTES = before


KINDS_OF_PARQUET = [
    pa.string(), pa.large_string(), pa.list_(pa.string()), pa.large_list(pa.string()), pa.int64(), pa.int8(),
    pa.float32(), pa.float64(), pa.bool_(), pa.null(), pa.list_(pa.int64()), pa.list_(pa.null()),
    pa.list_(pa.float64()),
    pa.struct([("a", pa.string())]), pa.list_(pa.struct([("a", pa.int64())])), pa.list_(pa.list_(pa.string())),
    pa.dictionary(pa.int32(), pa.string()), pa.timestamp("us"), pa.map_(pa.string(), pa.int64()), pa.binary(),
    pa.list_(pa.string(), 2), pa.date32(), pa.string_view(), pa.uint64(), pa.list_(pa.bool_()),
]  # fmt: skip


def values_of(kind):
    """Values of a type, null among them."""
    import datetime

    if pa.types.is_dictionary(kind):
        return values_of(kind.value_type)
    if pa.types.is_map(kind):
        found = st.lists(st.tuples(WORDS, st.integers(0, 2)), max_size=2)
    elif pa.types.is_fixed_size_list(kind):
        found = st.lists(values_of(kind.value_type), min_size=2, max_size=2)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        found = st.lists(values_of(kind.value_type), max_size=3)
    elif pa.types.is_struct(kind):
        found = st.fixed_dictionaries({"a": values_of(kind.field("a").type)})
    elif pa.types.is_integer(kind):
        found = st.integers(0, 3)
    elif pa.types.is_floating(kind):
        found = st.sampled_from([0.0, -0.0, 1.0, 1.5, float("nan")])
    elif pa.types.is_boolean(kind):
        found = st.booleans()
    elif pa.types.is_null(kind):
        return st.none()
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        found = st.sampled_from([datetime.datetime(2020, 1, 1), datetime.datetime(2021, 1, 1)])
    elif pa.types.is_binary(kind):
        found = st.sampled_from([b"", b"NA", b"\xff"])
    else:
        found = WORDS
    return st.one_of(st.none(), found)


@st.composite
def tables(draw):
    """Two tables of the same fields, not always of the same types."""
    names = draw(
        st.lists(st.sampled_from((*NINE, "pos_item_ids", "pos_item_contents")), min_size=1, max_size=6, unique=True)
    )
    count = draw(st.integers(1, 7))
    made = []
    for _ in range(2):
        kinds = [
            draw(st.sampled_from(KINDS_OF_PARQUET[:4] if draw(st.integers(0, 2)) else KINDS_OF_PARQUET)) for _ in names
        ]
        arrays = [pa.array([draw(values_of(kind)) for _ in range(count)], kind) for kind in kinds]
        made.append(pa.table(dict(zip(names, arrays, strict=True))))
    return made


@given(tables(), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_columns_of_parquet_say_what_rows_say(tmp_path_factory, made, group):
    paths = [tmp_path_factory.getbasetemp() / f"columns-{number}.parquet" for number in range(2)]
    for path, table in zip(paths, made, strict=True):
        pq.write_table(table, path, row_group_size=group)
    roles = roles_of(parts_of(paths), Fields())
    rows = merged((tally_rows(rows_of(part), roles) for part in parts_of(paths)), roles)
    columns = merged((tally_part(part, roles) for part in parts_of(paths)), roles)
    # What a row is kept as differs; which rows are identical does not.
    firsts = [[list(tally.hashes["rows"]).index(value) for value in tally.hashes["rows"]] for tally in (rows, columns)]
    assert firsts[0] == firsts[1]
    columns.hashes["rows"] = rows.hashes["rows"]
    same(columns, rows)


def taken(path, **options):
    """Return how many blocks there are, and how many are counted by columns."""
    roles = roles_of(parts_of([path]), Fields())
    parser, found = Parser(exact=told_apart(roles)), []
    for part in parts_of([path], **options):
        found += [parser.parse(block) is not None for block in blocks_of(part)]
    return len(found), sum(found)


@pytest.mark.parametrize(
    ("line", "by_columns"),
    [
        (b'{"question": "2020-01-01"}', True),
        (b'{"question": "\\ud83d\\ude00", "n": 1}', True),
        (b'{"question": null}', True),
        (b'{"n": 1.5}', True),
        (b'{"passage_id": [1, 2]}', True),
        (b'{"question": "{}no{"}', True),
        (b'{"question": "}null {"}', True),
        (b'{"question": "x", "question": "y"}', False),
        (b'{"question": "x", "\\u0071uestion": null}', False),
        (b'{"question": 12345678901234567890}', False),
        (b'{"question": 1.5}', False),
        (b'{"n": 12345678901234567890}', True),
        (b'{"n": {"question": 1}}', False),
        (b'{"n": [[1]]}', False),
        (b'{"passage_id": [1, "x"]}', False),
    ],
)
def test_lines_that_may_be_read_otherwise(tmp_path, line, by_columns):
    """Each beside rows of its kind, so that only what is special of it decides."""
    path = tmp_path / "lines.jsonl"
    for content in (line, b"\n".join([line] * 3), b'{"other": "x"}\n' + line + b'\n{"other": null}\n'):
        path.write_bytes(content)
        roles = roles_of(parts_of([path]), Fields())
        same(counted_by_columns(path, roles, 1 << 20), counted_by_rows(path, roles, 1 << 20))
        assert taken(path) == (1, int(by_columns))


GOOD = b'{"question": "x"}'


@pytest.mark.parametrize(
    "line",
    [
        b'{"question": NaN}', b'{"n": Infinity}', b'{"n": -Infinity}', b'{"n": 01}', b'{"n": 1.}', b'{"n": 1e400}',
        b"null",
        b"[1]", b"1", b'"x"', b'{"n": 1} {"n": 2}', b'{"n": 1} null', b'{"n": 1}null{"n": 2}',
        b'{"n": 1}\x00', b'{"n": "\x00"}',
        b'{"n": "\xff"}', b'{"\xff": "x"}', b'{"n": "\xed\xa0\x80"}', b'{"n": "\\ud800"}',
        b'{"n": "\\udc00"}', b'{"n": "a\tb"}',
        b'{"n": "\\x"}', b'{"n": 1,}', b"{'n': 1}", b'{"n": True}', b'{"n": 1}\x0c', b' \xef\xbb\xbf{"n": 1}', b'{"n":',
        b'{"n": "a}\n{b"}', b'{"n": [{}\n{}]}', b'{"n": {"a": {}}\n{}', b'{"n": 1} // x',
        "{\"n\":\u00a01}".encode(), b"}{",
        b'{"question": "x"}\n1}', b'{"n": [1 2]}', b'{n: 1}', b'{"n" 1}',
    ],
)  # fmt: skip
def test_damage_is_what_the_rows_say_it_is(tmp_path, line):
    path = tmp_path / "damaged.jsonl"
    for content in (line, GOOD + b"\n" + line, GOOD + b"\n\n" + line + b"\n" + GOOD, line + b"\n" + GOOD + b"\n"):
        for begin in (b"", b"\xef\xbb\xbf", (GOOD + b"\n") * 20):
            path.write_bytes(begin + content)
            part = parts_of([path])[0]
            roles = find_roles(Fields(), ["question"], file="x")
            with pytest.raises(AblabError) as said:
                tally_rows(rows_of(part), roles)
            for size in (1, 30, 1 << 20):
                with pytest.raises(AblabError) as found:
                    counted_by_columns(path, roles, size)
                assert str(found.value) == str(said.value)


def nine(number):
    """A row of the nine fields as data sets have them."""
    count = number % 7 + 1
    ids = [str((number * 31 + i) % 500) for i in range(count)]
    return {
        "answer": ["birch", "자작나무"][: number % 2 + 1], "data_id": f"q{number}", "dataset_id": "infoseek",
        "image_path": f"{number % 90}.jpg" if number % 11 else None, "instruction": "Find what the question asks:",
        "passage_id": ids, "passage_image_path": [f"{i}.jpg" if int(i) % 9 else "NA" for i in ids],
        "passage_text": [f'It is called "number {i}": 나무 – a tree.' for i in ids], "question": "What is this tree?",
    }  # fmt: skip


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("change", ["none", "absent", "scalars", "compressed"])
def test_files_as_they_are_go_by_columns(tmp_path, monkeypatch, ascii_only, change):
    rows = [nine(number) for number in range(600)]
    if change == "absent":
        rows = [{name: row[name] for name in row if name != "answer" or number % 3} for number, row in enumerate(rows)]
    if change == "scalars":
        rows = [{name: v[0] if isinstance(v, list) else v for name, v in row.items()} for row in rows]
    path = tmp_path / f"nine.jsonl{'.gz' if change == 'compressed' else ''}"
    content = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if change == "compressed" else content)
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 30_000)
    count, columns = taken(path, size=200_000)
    assert count == columns >= 5
    roles = roles_of(parts_of([path]), Fields())
    same(counted_by_columns(path, roles, 200_000), counted_by_rows(path, roles, 200_000))


def test_blanks_are_those_of_python():
    blanks = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
    assert {blank.encode()[0] for blank in blanks} == set(BLANKS)
    texts = [
        *blanks,
        *(f"NA{blank}" for blank in blanks),
        *(f"{blank}NA" for blank in blanks),
        "NA",
        "",
        "NAX",
        "N",
        "가",
    ]
    empty, na = missing_texts(pa.array(texts))
    assert empty.tolist() == [not text.strip() for text in texts]
    assert na.tolist() == [text.strip() == "NA" for text in texts]


def test_parquet_with_bytes_that_are_no_text_is_damaged(tmp_path):
    path = tmp_path / "bytes.parquet"
    text = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\x01\0\0\0\x02\0\0\0"), pa.py_buffer(b"a\xff"))
    pq.write_table(pa.table({"question": text}), path)
    roles = find_roles(Fields(), ["question"], file="x")
    with pytest.raises(AblabError, match=r"damaged parquet.*utf-8"):
        counted_by_columns(path, roles, None)


def outcome(work, output):
    """What a choice returns and writes, or what it complains of."""
    try:
        found = work()
    except AblabError as error:
        return str(error)
    return found, output.read_bytes()


@given(
    files(),
    st.lists(st.sampled_from(SIDES), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(["candidates", "question-word", "image", *NINE]), min_size=1, max_size=3, unique=True),
)
@settings(max_examples=100, deadline=None)
def test_choices_by_columns_are_those_by_rows(tmp_path_factory, content, require, strata):
    path = tmp_path_factory.getbasetemp() / "choices.jsonl"
    path.write_bytes(content)
    output = path.with_name("chosen.jsonl")
    wanted = Balance(files=(str(path),), strata=tuple(strata), per_stratum=1)
    found = []
    for parse in (Parser.parse, lambda parser, block: None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Parser, "parse", parse)
            found.append(
                [
                    outcome(lambda: filter_rows([path], output, require=require), output),
                    outcome(lambda: balance(wanted, output), output),
                ]
            )
    assert found[0] == found[1]
