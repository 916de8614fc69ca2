"""Finds fonts with Korean and Latin letters, and says whether a font can write a text."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

#: Package that carries the Nanum fonts (SIL Open Font Licence), and where systems keep them.
PACKAGE = "koreanize_matplotlib"
_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts", "/Library/Fonts")
_NAMES = ("Nanum*.ttf", "nanum*.ttf", "NotoSansKR*.ttf", "NotoSerifKR*.ttf")

#: What any font taken here can write: a test of Korean and Latin letters, digits and signs.
SAMPLE = "가나다라마바사아자차카타파하은는이가을를과와 ABCxyz 0123456789 .,:;!?()[]%-+/'\"$"


def default_fonts() -> tuple[Path, ...]:
    """Return the Korean fonts of the package, or else of the system; none where there are none. Sorted by name."""
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = sorted(path for place in places for path in Path(place, "fonts").glob("*.ttf"))
    if found:
        return tuple(found)
    folders = [Path(os.path.expandvars(folder)).expanduser() for folder in _FOLDERS]
    system = {path for folder in folders if folder.is_dir() for name in _NAMES for path in folder.rglob(name)}
    return tuple(sorted(system, key=lambda path: path.name))


def usable_fonts(given: Sequence[str | os.PathLike[str]] = ()) -> tuple[Path, ...]:
    """Return the fonts to draw with.

    Args:
        given: font files of the user's; empty takes `default_fonts`.

    Raises:
        ConfigError: there is none, a file is missing, or one cannot write Korean or Latin letters.
    """
    paths = tuple(Path(path).expanduser() for path in given) or default_fonts()
    if not paths:
        raise ConfigError(
            "no font with Korean letters was found: pip install koreanize-matplotlib (it carries the Nanum fonts), "
            "install fonts-nanum, or name font files under `fonts`"
        )
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"{path}: no such font file; correct `fonts`")
        lacking = missing(SAMPLE, path)
        if lacking:
            raise ConfigError(f"{path}: the font lacks {lacking!r}; take one with Korean and Latin letters")
    return paths


@cache
def letters(path: Path) -> frozenset[int]:
    """Return the code points a font file has glyphs for.

    Raises:
        ConfigError: it is no font file.
    """
    try:
        from matplotlib.ft2font import FT2Font
    except ImportError as error:
        raise ConfigError("drawing text needs matplotlib: pip install 'ablab[plots]'", missing="matplotlib") from error
    try:
        return frozenset(FT2Font(os.fspath(path)).get_charmap())
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"{path}: not a readable font file ({error})") from error


def missing(text: str, path: Path) -> str:
    """Return the letters of a text that a font has no glyph for; space and line ends need none."""
    known = letters(path)
    return "".join(sorted({char for char in text if not char.isspace() and ord(char) not in known}))


def common(paths: Iterable[Path]) -> frozenset[str]:
    """Return the letters that every one of some fonts has, and space."""
    known = frozenset.intersection(*(letters(path) for path in paths))
    return frozenset(map(chr, known)) | {" "}


@cache
def load(path: Path, size: int) -> FreeTypeFont:
    """Return a font at a size in pixels, laid out the same on every machine (without Raqm)."""
    from PIL import ImageFont

    return ImageFont.truetype(os.fspath(path), size, layout_engine=ImageFont.Layout.BASIC)
