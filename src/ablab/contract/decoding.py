"""How text is generated: settings that tasks put into their stages and `ablab.generation.decoding` follows."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.registry import nearest


class Decoding(Strict):
    """Settings of deterministic decoding; sampling is off. What a model's own files say of these is not used."""

    beams: int = setting(1, "Beams; 1 is greedy.", ge=1)
    length_penalty: float = setting(
        1.0, "A beam's score is its log-probability / length ** this: above 0 favours longer outputs."
    )
    no_repeat_ngram: int = setting(0, "No n-gram of the output's tokens occurs twice; 0 blocks nothing.", ge=0)
    min_length: int = setting(0, "Tokens before the end may be generated.", ge=0, unit="tokens")
    max_new_tokens: int = setting(128, "Most tokens generated.", ge=1, unit="tokens")
    early_stopping: bool | Literal["never"] = setting(
        False,
        "Beams end when as many are finished (true), when a better one is unlikely (false), or impossible (never).",
    )
    repetition_penalty: float = setting(1.0, "Divides the scores of tokens already in the output; 1 is off.", gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Decoding:
        if self.min_length > self.max_new_tokens:
            raise ValueError(f"min_length {self.min_length} exceeds max_new_tokens {self.max_new_tokens}")
        return self

    @property
    def effective(self) -> Decoding:
        """What decides the output: beams' settings do nothing without beams."""
        if self.beams > 1:
            return self
        return self.model_copy(update={"length_penalty": 1.0, "early_stopping": False})


class DecodingSweep(Strict):
    """Parameters of a sweep of decodings over one trained model, without training it again."""

    sweep: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = setting(
        ...,
        "Values to try by setting of the decoding, every combination once: {beams: [1, 4], length_penalty: [0.6, 1]}.",
        min_length=1,
    )
    decoding: Decoding = setting(default_factory=Decoding, description="Settings that are not swept.")

    @model_validator(mode="after")
    def _values_fit(self) -> DecodingSweep:
        known = tuple(Decoding.model_fields)
        unknown = next((name for name in self.sweep if name not in known), None)
        if unknown is not None:
            near = nearest(unknown, known)
            raise ValueError(
                f"sweep.{unknown} is no setting of a decoding; "
                + (f"did you mean {near}?" if near else f"there are {', '.join(known)}")
            )
        try:
            self.decodings()
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(("sweep", *map(str, first["loc"])))
            raise ValueError(
                f"{place}: {first['msg'].removeprefix('Value error, ')}, found {first['input']!r}"
            ) from None
        return self

    def decodings(self) -> list[Decoding]:
        """Return every combination, the last setting varying fastest."""
        base = self.decoding.model_dump()
        return [
            Decoding.model_validate(base | dict(zip(self.sweep, values, strict=True)))
            for values in itertools.product(*self.sweep.values())
        ]
