"""Settings of a study as a reader wants them: what all arms share, told once, and what varies between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablab.contract.units import figure

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ablab.study.schema import Experiment, Study

#: Settings longer than this are cut: a report shows them, the frozen study holds them.
_LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings by path of the study: `fixed` are those of every arm, `varying` those of each arm by its name."""

    fixed: Mapping[str, Any]
    varying: Mapping[str, Mapping[str, Any]]

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths that vary, in the order they are first met."""
        return tuple(dict.fromkeys(path for found in self.varying.values() for path in found))


def split(study: Study) -> Settings:
    """Return what all arms have alike and what differs between any two; a setting only some have varies."""
    flats = {name: flat(experiment) for name, experiment in study.experiments.items()}
    every = list(flats.values())
    paths = list(dict.fromkeys(path for found in every for path in found))
    fixed = {}
    for path in paths:
        first = every[0].get(path)
        if all(path in found and found[path] == first for found in every):
            fixed[path] = first
    varying = {name: {path: found.get(path) for path in paths if path not in fixed} for name, found in flats.items()}
    return Settings(fixed={path: value for path, value in fixed.items() if value is not None}, varying=varying)


def flat(experiment: Experiment) -> dict[str, Any]:
    """Return every setting of an arm by its path; lists stay whole."""
    found: dict[str, Any] = {}
    for stage in experiment.stages:
        for name, section in stage.sections.items():
            values = _flat(section, name)
            # A stage that has its own version of a section says so under its own path.
            own = any(path in found and found[path] != value for path, value in values.items())
            found |= _flat(section, f"pipeline.{stage.name}.{name}") if own else values
        found |= _flat(stage.parameters, f"pipeline.{stage.name}")
    return found


def _flat(block: BaseModel, prefix: str) -> dict[str, Any]:
    from pydantic import BaseModel

    found: dict[str, Any] = {}
    values = {**{name: getattr(block, name) for name in type(block).model_fields}, **(block.model_extra or {})}
    for name, value in values.items():
        if isinstance(value, BaseModel):
            found |= _flat(value, f"{prefix}.{name}")
        else:
            found[f"{prefix}.{name}"] = value
    return found


def short(value: Any) -> str:
    """Return a setting as a study would write it, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{name}: {short(item)}" for name, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(short(item) for item in value) + "]"
    elif hasattr(value, "model_dump"):
        text = short(value.model_dump(mode="json"))
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def plain(value: Any) -> str:
    """Return nested facts on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(plain(item) for item in value) or "none"
    return figure(value) if isinstance(value, float) else str(value)
