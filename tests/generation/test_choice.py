"""Sweeps of decodings: every combination, mistakes by name, and the chosen one read by the stage that needs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ablab.contract.decoding import Decoding, DecodingSweep
from ablab.contract.failure import ConfigError, DataError
from ablab.contract.order import Input
from ablab.contract.result import Result
from ablab.generation.choice import chosen_decoding
from ablab.store.files import write_json


def test_a_sweep_is_every_combination_over_what_is_not_swept() -> None:
    sweep = DecodingSweep(sweep={"beams": (1, 4), "length_penalty": (0.6, 1.0)}, decoding=Decoding(max_new_tokens=9))
    found = [(d.beams, d.length_penalty, d.max_new_tokens) for d in sweep.decodings()]
    assert found == [(1, 0.6, 9), (1, 1.0, 9), (4, 0.6, 9), (4, 1.0, 9)]
    assert len({decoding.effective for decoding in sweep.decodings()}) == 3


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ({"beam": (1,)}, "sweep.beam is no setting of a decoding; did you mean beams"),
        ({"beams": (0,)}, "sweep.beams: Input should be greater than or equal to 1, found 0"),
        ({"min_length": (999,)}, "min_length 999 exceeds max_new_tokens 128"),
        ({"beams": ()}, "at least 1 item"),
        ({}, "at least 1 item"),
    ],
)
def test_mistakes_in_a_sweep_are_named(sweep: dict[str, tuple[int, ...]], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        DecodingSweep(sweep=sweep)


def _input(folder: Path, kind: str = "decode-sweep") -> Input:
    return Input(reference=folder.name, stage=kind, kind=kind, key=folder.name, path=str(folder))


def test_a_stage_takes_the_decoding_its_sweep_chose(tmp_path: Path) -> None:
    own, chosen = Decoding(beams=2), Decoding(beams=4, length_penalty=0.6)
    assert chosen_decoding([_input(tmp_path / "train", "train")], own) == own
    folder = tmp_path / "sweep"
    folder.mkdir()
    with pytest.raises(DataError, match="is not finished"):
        chosen_decoding([_input(folder)], own)
    write_json(folder / "result.json", Result(key="sweep", facts={"chosen": chosen.model_dump()}).model_dump())
    assert chosen_decoding([_input(tmp_path / "train", "train"), _input(folder)], own) == chosen
    with pytest.raises(ConfigError, match="at most one decode-sweep, found sweep, sweep"):
        chosen_decoding([_input(folder), _input(folder)], own)
