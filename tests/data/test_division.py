from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.failure import ConfigError
from ablab.data.division import Division


def test_shares_are_what_was_asked() -> None:
    division = Division(validation=0.1, test=0.2)
    splits = [division.split(f"document {i}".encode()) for i in range(10_000)]
    # Five standard deviations of a binomial around the shares.
    assert abs(splits.count("val") - 1000) < 150
    assert abs(splits.count("test") - 2000) < 200


@given(st.binary(), st.integers(0, 2**64))
def test_the_same_text_always_falls_the_same_way(text: bytes, seed: int) -> None:
    assert Division(validation=0.3, test=0.3, seed=seed).split(text) == Division(
        validation=0.3, test=0.3, seed=seed
    ).split(bytes(text))


def test_another_seed_is_another_division() -> None:
    texts = [str(i).encode() for i in range(200)]
    first = [Division(validation=0.5, test=0, seed=1).split(text) for text in texts]
    second = [Division(validation=0.5, test=0, seed=2).split(text) for text in texts]
    assert first != second


@given(st.binary())
def test_a_share_of_zero_divides_nothing_off(text: bytes) -> None:
    assert Division(validation=0, test=0).split(text) == "train"
    assert Division(validation=0, test=0.5).split(text) != "val"


@given(st.binary(), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_larger_validation_share_keeps_its_documents(text: bytes, small: float, more: float) -> None:
    if Division(validation=small, test=0).split(text) == "val":
        assert Division(validation=small + more, test=0).split(text) == "val"


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (-0.1, 0), (0, 1)])
def test_shares_that_leave_nothing_are_refused(validation: float, test: float) -> None:
    with pytest.raises(ConfigError, match="leave some to train"):
        Division(validation=validation, test=test)
