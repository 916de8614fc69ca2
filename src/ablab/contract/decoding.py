"""How text is generated: settings that tasks put into their stages and `ablab.generation.decoding` follows."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ablab.contract.base import Strict, setting


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
