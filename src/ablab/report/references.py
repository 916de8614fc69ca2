"""References of a study, wherever they were given: in the study file, and imported into its folder of the store.

They are shown beside measured numbers, each with its source, and no computation reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ablab.store.references import read_references

if TYPE_CHECKING:
    from ablab.store.layout import Store
    from ablab.study.schema import Study

Side = Literal["below", "within", "above"]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A number from elsewhere; `source` and `note` as the author or the import gave them.

    Args:
        value: the number; of a band its middle.
        band: lowest and highest value, where a band was given.
    """

    value: float
    source: str
    note: str = ""
    band: tuple[float, float] | None = None

    def text(self, figure: Callable[[float], str]) -> str:
        """Return the number, or both ends of the band, as `figure` writes numbers."""
        return figure(self.value) if self.band is None else "–".join(map(figure, self.band))

    def side(self, value: float) -> Side | None:
        """Return where a measured value stands to the band; None without one."""
        if self.band is None:
            return None
        low, high = self.band
        return "below" if value < low else "above" if value > high else "within"


References = Mapping[str, Mapping[str, tuple[Reference, ...]]]


def references_of(study: Study, store: Store, *, problems: list[str] | None = None) -> References:
    """Return every reference by experiment and metric: the study file's first, then imports, oldest source first.

    Args:
        study: the study; imports for experiments that it no longer has are left out.
        store: where imports are.
        problems: takes what is wrong with a damaged file of imports; None raises it.
    """
    found: dict[str, dict[str, list[Reference]]] = {}
    for experiment, given in study.references.items():
        for metric, value in given.values.items():
            source = given.source or "study file"
            own = Reference(value=value, source=source, note=given.note, band=given.bands.get(metric))
            found.setdefault(experiment, {}).setdefault(metric, []).append(own)
    folder = store.study_folder(study.name, study.profile)
    for entry in read_references(folder, problems=problems):
        if entry.experiment in study.experiments:
            where = entry.file + (f", row {entry.row}" if entry.row is not None else "")
            other = Reference(value=entry.value, source=entry.source, note=where)
            found.setdefault(entry.experiment, {}).setdefault(entry.metric, []).append(other)
    return {
        experiment: {metric: tuple(values) for metric, values in metrics.items()}
        for experiment, metrics in found.items()
    }


def sources_of(references: References) -> list[str]:
    """Return the distinct sources, in the order they are met; a footnote's number is its place here."""
    return list(
        dict.fromkeys(each.source for metrics in references.values() for values in metrics.values() for each in values)
    )
