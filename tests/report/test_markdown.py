import re

from hypothesis import given
from hypothesis import strategies as st

from ablab.report.document import Bullets, Cell, Code, Document, Section, Text, table
from ablab.report.markdown import block_lines, escape, render

HOSTILE = "<script>alert(1)</script> | *bold* [x](javascript:alert(1)) `co|de` # _u_\n## new"


def test_hostile_names_stay_text() -> None:
    blocks = (Text(text=HOSTILE), Bullets(items=(HOSTILE,)), table((HOSTILE,), [(HOSTILE,)]))
    text = render(Document(title=HOSTILE, subtitle=HOSTILE, sections=(Section(id="x", title=HOSTILE, blocks=blocks),)))
    outside_code = re.sub(r"`[^`]*`", "", text)
    assert not re.search(r"(?<!\\)<script", outside_code)
    assert not re.search(r"(?<!\\)\[x", outside_code)
    assert sum(line.startswith("## ") for line in text.splitlines()) == 1


@given(st.text())
def test_an_escaped_text_is_one_line_without_open_markup(text: str) -> None:
    escaped = escape(text)
    assert "\n" not in escaped
    plain = re.sub(r"`[^`]*`", "", escaped)
    assert not re.search(r"(?<!\\)(\\\\)*[<>|*]", plain)


def test_a_table_keeps_its_columns_whatever_the_cells_hold() -> None:
    lines = list(block_lines(table(("a", "b"), [("x|y", Cell(text="1", tone="good", note="n"))], numeric=(1,))))
    assert lines == ["| a | b |", "|---|--:|", "| x\\|y | ✔ 1 (n) |"]


def test_a_code_block_cannot_be_closed_from_inside() -> None:
    lines = list(block_lines(Code(text="a\n```\nb", language="sh")))
    assert lines[0] == "````sh"
    assert lines[-1] == "````"
