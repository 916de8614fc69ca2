"""WikiText: one row a line; articles are joined again at their headings " = Title = "."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ablab.data.documents import Document


def join_articles(rows: Iterable[Document]) -> Iterator[Document]:
    """Yield one document an article.

    An article starts at a line " = Title = " with one equals sign a side that follows a blank line (or nothing):
    sections have two signs or more (" = = History = = "). Blank rows, which the hub's copy holds as "", become the
    " \\n" of the original files; blank lines around an article are left out.
    """
    article: list[Document] = []
    after_blank = True
    for row in rows:
        line = row.text.rstrip("\n")
        blank = not line.strip()
        if after_blank and _is_title(line) and article:
            yield _join(article)
            article = []
        if article or not blank:
            article.append(row._replace(text=" \n" if blank else f"{line}\n"))
        after_blank = blank
    if article:
        yield _join(article)


def _is_title(line: str) -> bool:
    text = line.strip()
    return (
        len(text) >= 5
        and text.startswith("= ")
        and text.endswith(" =")
        and not text.startswith("= =")
        and not text.endswith("= =")
    )


def _join(article: list[Document]) -> Document:
    while not article[-1].text.strip():
        article.pop()
    return article[0]._replace(text="".join(line.text for line in article).rstrip("\n"))
