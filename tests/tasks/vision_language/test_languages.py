"""Shares of languages are met exactly, with every row seen at most as often as its set is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.contract.failure import ConfigError
from ablab.tasks.vision_language.sets import SETS, Mixture, open_sets, write_set


def make(folder: Path, name: str, languages: list[str], *, language: str = "") -> None:
    rows = [
        {"id": f"{name}-{i}", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
        | ({"language": spoken} if spoken else {})
        for i, spoken in enumerate(languages)
    ]
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_set(folder / SETS / name, [file], images=None, place=None, language=language)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("sets")
    make(folder, "mixed", ["en", "ko", "en", "en"] * 20)
    make(folder, "korean", [""] * 30, language="ko")
    return open_sets(folder, ["mixed", "korean"], study_folder=None)


def spoken_in(mixture: Mixture) -> list[str]:
    found = []
    for sample in range(len(mixture)):
        rows, row = mixture.place(sample)
        found.append(rows.conversation(row).language or "ko")
    return found


@settings(deadline=None, max_examples=25)
@given(share=st.floats(0.05, 0.95), often=st.sampled_from([0.5, 1, 2]))
def test_an_epoch_has_the_shares_and_is_as_long_as_it_can_be(sets, share, often):
    shares = {"mixed": often, "korean": 1}
    whole = Counter(spoken_in(Mixture(sets, shares)))
    found = Counter(spoken_in(Mixture(sets, shares, languages={"en": 1 - share, "ko": share})))
    total = sum(found.values())
    assert abs(found["ko"] - share * total) <= 1
    assert found["ko"] >= whole["ko"] - 1 or found["en"] >= whole["en"] - 1


def test_rows_in_no_named_language_are_left_out_and_the_choice_is_the_same_each_time(sets):
    one, other = (Mixture(sets, {"mixed": 1}, languages={"ko": 1.0}) for _ in range(2))
    assert set(spoken_in(one)) == {"ko"} and len(one) == 20
    assert one.rows.tolist() == other.rows.tolist()


def test_a_language_that_nobody_speaks_is_named(sets):
    with pytest.raises(ConfigError, match="no row of mixed is in 'fr'"):
        Mixture(sets, {"mixed": 1}, languages={"en": 0.5, "fr": 0.5})
