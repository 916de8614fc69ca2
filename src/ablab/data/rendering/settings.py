"""How a study asks for rendered pictures of text, and what of it enters the key; no PIL, no matplotlib."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.task import DataReference
from ablab.data.rendering.fonts import default_fonts

Kind = Literal["line", "document", "table", "chart"]
KINDS: tuple[Kind, ...] = ("line", "document", "table", "chart")


class Rendered(Strict):
    """A set of rendered pictures with questions about what is written in them."""

    rows: int = setting(1000, "Pictures.", ge=1)
    kinds: dict[Kind, float] = setting(
        default_factory=lambda: {"line": 0.4, "document": 0.2, "table": 0.2, "chart": 0.2},
        description="Share of each kind; met exactly but for rounding. They need not sum to 1.",
    )
    korean: float = setting(0.5, "Share of Korean pictures, met within each kind but for rounding.", ge=0, le=1)
    augmentation: Literal["none", "light", "strong"] = setting(
        "light", "Rotation, blur, noise, uneven light, JPEG: none, as a scanner does it, or as a telephone does it."
    )
    questions: int = setting(3, "Most questions about one picture.", ge=1, le=8)
    seed: int = setting(2357, "Seed of all draws; the same for every seed of the study.", ge=0)
    fonts: tuple[str, ...] = setting(
        (), "Font files (TrueType) with Korean and Latin; empty takes those found. Their content enters the key.",
        keyed=False,
    )  # fmt: skip
    workers: int = setting(1, "Processes that draw.", ge=1, keyed=False)

    @model_validator(mode="after")
    def _shares(self) -> Rendered:
        if any(share < 0 for share in self.kinds.values()) or sum(self.kinds.values()) <= 0:
            raise ValueError(f"kinds: shares are 0 or more, and one at least is above; found {self.kinds}")
        return self


def references(settings: Rendered, *, path: str) -> list[DataReference]:
    """Return the font files, whose content determines the pixels; without any, one that does not exist, so that the
    plan says what is missing."""
    names = settings.fonts or tuple(map(str, default_fonts())) or ("a Korean font (pip install koreanize-matplotlib)",)
    return [DataReference(kind="file", name=name, path=f"{path}.fonts[{i}]") for i, name in enumerate(names)]
