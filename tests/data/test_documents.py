from __future__ import annotations

from itertools import count

import pytest

from ablab.contract.failure import DataError
from ablab.data.documents import Document, check_text, corrupt, limited, nearest_fields


def test_an_error_says_where_what_and_what_to_do() -> None:
    with pytest.raises(DataError, match=r"^a\.jsonl, line 7: broken; mend or remove it$") as error:
        corrupt("a.jsonl", 7, "broken")
    assert error.value.detail == {"file": "a.jsonl", "row": 7}


def test_text_is_returned_as_it_is() -> None:
    assert check_text("ü\x00", file="f", row=1, field="text") == "ü\x00"


def test_fields_are_listed_nearest_first() -> None:
    assert nearest_fields("text", ["id", "texts", "url"]) == "it has 'texts', 'id', 'url'"
    assert nearest_fields("text", []) == "it has no fields"


def test_limits_read_no_further_than_needed() -> None:
    numbers = count()
    documents = (Document(str(i), "f", i) for i in numbers)
    assert [d.text for d in limited(documents, 3)] == ["0", "1", "2"]
    assert next(numbers) == 3
    assert len(list(limited([Document("a", "f", 1)], None))) == 1
