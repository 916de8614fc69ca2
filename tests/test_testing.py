"""check_task accepts sound tasks and names what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablab.testing import check_task

TINY = Path(__file__).parent / "worker"


def test_the_language_modelling_task_keeps_its_promises() -> None:
    sections = {
        "model": {"width": 16, "layers": 1, "heads": 2, "context": 8, "dropout": 0.0},
        "data": {
            "source": "austen",
            "max_documents": 6,
            "tokenizer": {"name": "bytes"},
            "splits": {"validation": 0.2, "test": 0.2},
        },
    }
    found = check_task("language-modeling", sections=sections, stages={"prepare": {"workers": 1}})
    assert found.overfit[1] < found.overfit[0] / 2 and found.loss > 0


@pytest.mark.parametrize(
    ("model", "says"),
    [({"dropout": 0.5}, "single samples"), ({"poison": 3}, "not-finite")],
)
def test_what_does_not_hold_is_named(model: dict[str, float], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_task("tiny.py:SPEC", folder=TINY, sections={"model": model})
