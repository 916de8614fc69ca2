from __future__ import annotations

from pathlib import Path

import pytest

from ablab.data.rendering.fonts import usable_fonts
from ablab.data.rendering.wording import Wording, load_wording


@pytest.fixture(scope="session")
def fonts() -> tuple[Path, ...]:
    return usable_fonts()


@pytest.fixture(scope="session")
def wording(fonts: tuple[Path, ...]) -> Wording:
    return load_wording(fonts)
