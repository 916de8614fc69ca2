"""The decoding that a sweep chose, for the stages that need it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ablab.contract.decoding import Decoding
from ablab.contract.failure import ConfigError, DataError
from ablab.contract.order import Input
from ablab.store.layout import RunFolder

#: Stage kind that chooses a decoding; its result's fact `chosen` holds the settings.
KIND = "decode-sweep"


def chosen_decoding(inputs: Iterable[Input], otherwise: Decoding) -> Decoding:
    """Return the decoding that the sweep among a stage's inputs chose; without a sweep, the stage's own.

    Raises:
        ConfigError: there is more than one sweep.
        DataError: the sweep is not finished.
    """
    sweeps = [given for given in inputs if given.kind == KIND]
    if not sweeps:
        return otherwise
    if len(sweeps) > 1:
        raise ConfigError(f"the stage needs at most one {KIND}, found {', '.join(s.reference for s in sweeps)}")
    result = RunFolder(Path(sweeps[0].path)).read_result()
    if result is None or "chosen" not in result.facts:
        raise DataError(f"{sweeps[0].reference} ({sweeps[0].path}) is not finished", file=sweeps[0].path)
    return Decoding.model_validate(result.facts["chosen"])
