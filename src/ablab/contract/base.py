"""The base of every typed block of a study file, and the marks that say whether a field determines a result."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """An immutable, closed block of parameters: an unknown key or a wrong type is an error."""

    # Built when first used: a command reads a few of the blocks there are.
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False, defer_build=True
    )


#: A value of the user's own, as the study file writes it.
Scalar = bool | int | float | str | None


class Open(Strict):
    """A block whose keys are the user's own: values by name, in `values`. A section of a task may be one.

    Which of them a stage reads is its `StageSpec.reads`; a key that no stage reads is an error.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Scalar]

    @property
    def values(self) -> dict[str, Scalar]:
        """The values by name."""
        return dict(self.__pydantic_extra__)


def setting(
    default: Any = ...,
    description: str = "",
    *,
    keyed: bool = True,
    stages: tuple[str, ...] | None = None,
    unit: str | None = None,
    **constraints: Any,
) -> Any:
    """Declare a field of a `Strict` block.

    Args:
        default: value that is used when the study does not set it; `...` makes the field required.
        description: one sentence shown by `ablab explain` and in the JSON Schema.
        keyed: False for what cannot change a result (paths, logging, checkpoint cadence, splits of a batch): it
            never enters a run's key.
        stages: stage kinds whose result the field determines; None means every stage that reads its section.
        unit: unit of the number, for `ablab explain`.
        **constraints: passed to pydantic's `Field` (`gt`, `ge`, `le`, `default_factory`, ...).
    """
    extra: dict[str, Any] = {"keyed": keyed}
    if stages is not None:
        extra["stages"] = list(stages)
    if unit is not None:
        extra["unit"] = unit
    if "default_factory" in constraints:
        return Field(description=description, json_schema_extra=extra, **constraints)
    return Field(default, description=description, json_schema_extra=extra, **constraints)
