from __future__ import annotations

from ablab.data.documents import Document
from ablab.data.readers.wikitext import join_articles

#: Lines of a file in WikiText's raw format.
ORIGINAL = [
    " \n",
    " = Robert Boulter = \n",
    " \n",
    " Robert Boulter is an actor . \n",
    " \n",
    " = = Career = = \n",
    " \n",
    " = not a title since no blank line stands before the next line = \n",
    " 1 + 1 \n",
    " = 2 = \n",
    " \n",
    " = = = 2000 – 2005 = = = \n",
    " \n",
    " He acted . \n",
    " \n",
    " \n",
    " = A = \n",
    " \n",
    " The letter . \n",
]


def rows(lines: list[str]) -> list[Document]:
    """Return the rows of the hub's copy, where a blank line is an empty string."""
    return [Document(line if line.strip() else "", "wikitext/train", i) for i, line in enumerate(lines, 1)]


def test_articles_are_joined_at_their_titles() -> None:
    lines = [line for i, line in enumerate(ORIGINAL) if i not in (6, 7)]
    first, second = join_articles(rows(lines))
    assert first.text == "".join(lines[1:12]).rstrip("\n")
    assert (second.text, second.row) == (" = A = \n \n The letter . ", 15)
    assert (first.file, first.row) == ("wikitext/train", 2)


def test_only_a_line_after_a_blank_one_is_a_title() -> None:
    # Line 10 (" = 2 = ") follows text; line 8 follows a blank line and counts as one.
    titles = [document.text.split("\n")[0].strip() for document in join_articles(rows(ORIGINAL))]
    assert titles == [
        "= Robert Boulter =",
        "= not a title since no blank line stands before the next line =",
        "= A =",
    ]


def test_nothing_but_outer_blank_lines_is_lost() -> None:
    words = [word for document in join_articles(rows(ORIGINAL)) for word in document.text.split()]
    assert words == "".join(ORIGINAL).split()


def test_text_before_the_first_title_is_kept() -> None:
    found = list(join_articles(rows([" loose \n", " \n", " = T = \n"])))
    assert [document.text for document in found] == [" loose ", " = T = "]
    assert list(join_articles([])) == []
