"""The generic stage kinds `describe`, `compare`, `filter` and `balance`: work on the rows of data files.

`ablab data` runs the same four on demand. Only their parameters stand here; `ablab.data.tables` computes them, and
`ablab.worker.stages.tables` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.task import DataReference, Sections, StageSpec

#: Sides of a query and its passages that `filter` may require.
Side = Literal["question", "image", "passage-text", "passage-image"]
SIDES: tuple[Side, ...] = ("question", "image", "passage-text", "passage-image")


class Fields(Strict):
    """Fields that mean something, where they are not called as in M2KR's flat or hub form. null looks for those."""

    id: str | None = setting(None, "Id of a row (data_id, question_id).")
    question: str | None = setting(None, "Text of the question.")
    image: str | None = setting(None, "Image of the query (image_path, img_path).")
    answers: str | None = setting(None, "Answers (answer, answers).")
    passage_ids: str | None = setting(None, "Ids of the candidate passages (passage_id, pos_item_ids).")
    passage_texts: str | None = setting(None, "Their texts (passage_text, pos_item_contents).")
    passage_images: str | None = setting(None, "Their images (passage_image_path).")


def _files(description: str) -> Any:
    return setting(..., description + " JSONL (also .gz, .xz, .bz2) or parquet.", min_length=1, keyed=False)


class Describe(Strict):
    """Parameters of a describe stage: every row is read."""

    files: tuple[str, ...] = _files("Files that make one set.")
    fields: Fields = setting(default_factory=Fields, description="What fields mean.")
    plots: bool = setting(True, "Draw the distributions as pictures too, where matplotlib is installed.")


class Compare(Strict):
    """Parameters of a compare stage: what differs between two sets, and what they share."""

    first: tuple[str, ...] = _files("Files of the first set (the original).")
    second: tuple[str, ...] = _files("Files of the second set (what was made of it).")
    names: tuple[str, str] = setting(("first", "second"), "What the sets are called.")
    fields: Fields = setting(default_factory=Fields, description="What fields mean.")
    plots: bool = setting(True, "Draw the distributions as pictures too, where matplotlib is installed.")


class Filter(Strict):
    """Parameters of a filter stage: the rows that have all that is required.

    Candidates that lack something are left out of a row; a row without any candidate left is left out.
    """

    files: tuple[str, ...] = _files("Files that make one set.")
    require: tuple[Side, ...] = setting(SIDES, "What a row must have; all four is text and image on both sides.")
    passages: tuple[str, ...] = setting(
        (), "Files of the pool, where rows name their candidates only by id (the hub's form).", keyed=False
    )
    fields: Fields = setting(default_factory=Fields, description="What fields mean.")


class Balance(Strict):
    """Parameters of a balance stage: a subset with equal numbers from each stratum, as far as they reach.

    A stratum too small for its share is taken whole, and what it leaves is shared by the others.
    """

    files: tuple[str, ...] = _files("Files that make one set.")
    strata: tuple[str, ...] = setting(
        ("candidates",),
        "What rows are grouped by: candidates (buckets of their number), question-word, image (whether there is one), "
        "or a field by its value.",
        min_length=1,
    )
    rows: int | None = setting(None, "Rows of the subset.", ge=1)
    share: float | None = setting(None, "Rows of the subset as a share of all.", gt=0, le=1)
    per_stratum: int | None = setting(None, "Rows of each stratum at most.", ge=1)
    seed: int = setting(42, "Seed of the draw; the same for every seed of a study.", ge=0)
    fields: Fields = setting(default_factory=Fields, description="What fields mean.")

    @model_validator(mode="after")
    def _one_size(self) -> Balance:
        given = [name for name in ("rows", "share", "per_stratum") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"say how many rows by one of rows, share and per_stratum; found {given or 'none'}")
        return self


def _reads(*names: str) -> Callable[[Sections, Any], list[DataReference]]:
    """Return the files that parameters of these names list."""

    def references(_: Sections, parameters: Any) -> list[DataReference]:
        return [
            DataReference(kind="file", name=file, path=f"{name}[{i}]")
            for name in names
            for i, file in enumerate(getattr(parameters, name))
        ]

    return references


DESCRIBE = StageSpec(
    kind="describe",
    parameters=Describe,
    run="ablab.worker.stages.tables:describe",
    seeded=False,
    accelerator=False,
    references=_reads("files"),
    summary="read every row of data files: schema, missing values, candidates, questions, lengths, duplicates",
)
COMPARE = StageSpec(
    kind="compare",
    parameters=Compare,
    run="ablab.worker.stages.tables:compare",
    seeded=False,
    accelerator=False,
    references=_reads("first", "second"),
    summary="say what differs between two sets of rows, and what they share",
)
FILTER = StageSpec(
    kind="filter",
    parameters=Filter,
    run="ablab.worker.stages.tables:filter_rows",
    seeded=False,
    accelerator=False,
    references=_reads("files", "passages"),
    summary="keep the rows that have text and image on both sides, or what is required",
)
BALANCE = StageSpec(
    kind="balance",
    parameters=Balance,
    run="ablab.worker.stages.tables:balance",
    seeded=False,
    accelerator=False,
    references=_reads("files"),
    summary="draw a subset with equal numbers from each stratum",
)
TABLES = (DESCRIBE, COMPARE, FILTER, BALANCE)
