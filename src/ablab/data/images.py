"""Images from a folder or a tar file as pixels of one size: decoding, framing, and decoding ahead on threads.

PIL and numpy only. A picture that is missing or broken is an error that names it; whether a row may be skipped for
that is decided by who prepares the data (`ablab.data.conversations`). Normalisation is left to the device
(`normalise`): a batch travels as bytes, a quarter of the size.
"""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ablab.contract.failure import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Aspect = Literal["pad", "square", "crop"]
#: PIL's number of bicubic resampling, which CLIP's and SigLIP's processors name too.
BICUBIC = 3


class ImageSource:
    """Pictures by name, in a folder or in an uncompressed tar file; safe to use from several threads.

    Args:
        root: the folder, or the tar file.

    Raises:
        DataError: there is no such folder or file, or it is no tar file.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._index: dict[str, tuple[int, int]] | None = None
        self._handle: io.FileIO | None = None
        self._lock = threading.Lock()
        if not self.root.exists():
            raise DataError(f"{self.root}: no such folder or tar file of images", file=str(self.root))

    def __contains__(self, name: str) -> bool:
        """Whether there is a picture of this name; it may still be broken."""
        if self.root.is_dir():
            return (self.root / name).is_file()
        return name in self._members()

    def names(self) -> Iterator[str]:
        """Yield the names of all files, sorted."""
        if self.root.is_dir():
            yield from sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())
        else:
            yield from sorted(self._members())

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield the name and the encoded bytes of every file."""
        if self.root.is_dir():
            for path in self.root.rglob("*"):
                if path.is_file():
                    yield path.relative_to(self.root).as_posix(), path.stat().st_size
        else:
            yield from ((name, place[1]) for name, place in self._members().items())

    def read(self, name: str) -> bytes:
        """Return the encoded bytes of a picture.

        Raises:
            DataError: there is none of this name.
        """
        if self.root.is_dir():
            try:
                return (self.root / name).read_bytes()
            except OSError as error:
                raise DataError(f"{self.root / name}: no such image", file=str(self.root / name)) from error
        place = self._members().get(name)
        if place is None:
            raise DataError(f"{self.root}: has no image {name!r}", file=str(self.root), image=name)
        assert self._handle is not None
        return os.pread(self._handle.fileno(), place[1], place[0])

    def open(self, name: str) -> Image:
        """Return a picture in RGB, as the camera meant it to be turned; transparency stands on white.

        Raises:
            DataError: it is missing, or cannot be decoded.
        """
        return decode(self.read(name), name=f"{self.root}/{name}")

    def size(self, name: str) -> tuple[int, int]:
        """Return width and height of a picture as it will be opened, from its header alone.

        Raises:
            DataError: it is missing, or its header cannot be read.
        """
        from PIL import Image

        try:
            with Image.open(io.BytesIO(self.read(name))) as image:
                width, height = image.size
                # Orientations 5 to 8 of the EXIF standard lie on their side.
                return (height, width) if image.getexif().get(0x0112, 1) >= 5 else (width, height)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            message = f"{self.root}/{name}: the image cannot be read ({error}); get it again"
            raise DataError(message, file=f"{self.root}/{name}") from error

    def _members(self) -> dict[str, tuple[int, int]]:
        with self._lock:
            if self._index is None:
                try:
                    with tarfile.open(self.root, "r:") as archive:
                        found = {m.name.removeprefix("./"): (m.offset_data, m.size) for m in archive if m.isfile()}
                except (tarfile.TarError, OSError) as error:
                    message = f"{self.root}: not an uncompressed tar file ({error}); unpack it, or pack it without gzip"
                    raise DataError(message, file=str(self.root)) from error
                self._handle = io.FileIO(self.root)
                self._index = found
            return self._index

    def close(self) -> None:
        """Give back the file handle."""
        with self._lock:
            if self._handle is not None:
                self._handle.close()
                self._handle = self._index = None


def decode(data: bytes, *, name: str) -> Image:
    """Return encoded bytes as an RGB picture; transparency stands on white.

    Raises:
        DataError: they cannot be decoded; the message has `name`.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            # Each copy of a photograph costs a tenth of its decoding: none where nothing has to change.
            turned: Image.Image = image if image.getexif().get(0x0112, 1) == 1 else ImageOps.exif_transpose(image)
            if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
                rgba = turned.convert("RGBA")
                white = Image.new("RGBA", rgba.size, "white")
                return Image.alpha_composite(white, rgba).convert("RGB")
            return turned if turned.mode == "RGB" else turned.convert("RGB")
    except UnidentifiedImageError as error:
        message = f"{name}: the image cannot be decoded (of no format that is known); get it again"
        raise DataError(message, file=name) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: the image cannot be decoded ({error}); get it again", file=name) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Framing:
    """How a picture of any size becomes the tower's square.

    Args:
        size: pixels of a side.
        aspect: pad (to a square with the mean colour, then resized), square (resized, proportions lost), crop (the
            shorter side resized, the middle taken).
        mean, std: of the tower's normalisation, by channel, for values from 0 to 1.
        resample: PIL's number of the resampling.
    """

    size: int
    aspect: Aspect = "pad"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resample: int = BICUBIC

    def frame(self, image: Image) -> np.ndarray:
        """Return a picture as uint8 (3, size, size)."""
        if image.mode != "RGB":
            image = image.convert("RGB")
        if self.aspect == "pad":
            image = pad_to_square(image, self.colour)
        elif self.aspect == "crop":
            image = self._cropped(image)
        if image.size != (self.size, self.size):
            from PIL import Image as pil

            image = image.resize((self.size, self.size), pil.Resampling(self.resample))
        return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))

    @property
    def colour(self) -> tuple[int, int, int]:
        """The mean colour, as LLaVA rounds it (down)."""
        red, green, blue = (int(255 * value) for value in self.mean)
        return red, green, blue

    def blank(self) -> np.ndarray:
        """Return a picture of the mean colour alone, uint8 (3, size, size)."""
        return np.broadcast_to(np.array(self.colour, np.uint8)[:, None, None], (3, self.size, self.size)).copy()

    def _cropped(self, image: Image) -> Image:
        from PIL import Image as pil

        short = min(image.size)
        width, height = (max(self.size, int(side * self.size / short)) for side in image.size)
        if image.size != (width, height):
            image = image.resize((width, height), pil.Resampling(self.resample))
        if image.size == (self.size, self.size):
            return image
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return image.crop((left, top, left + self.size, top + self.size))


def pad_to_square(image: Image, colour: tuple[int, int, int]) -> Image:
    """Return the picture in the middle of a square of its longer side, the rest filled with a colour."""
    from PIL import Image as pil

    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = pil.new("RGB", (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def normalise(pixels: Tensor, framing: Framing) -> Tensor:
    """Return uint8 pixels (..., 3, S, S) as the float values a tower takes: (x / 255 - mean) / std."""
    import torch

    mean = torch.tensor(framing.mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(framing.std, device=pixels.device).view(3, 1, 1)
    return (pixels.to(torch.float32) / 255.0 - mean) / std


def load_all(
    load: Callable[[str], np.ndarray], names: Sequence[str], *, pool: ThreadPoolExecutor | None = None
) -> list[np.ndarray]:
    """Return `load` of each name in order, side by side on the pool's threads where there is one."""
    if pool is None or len(names) < 2:
        return [load(name) for name in names]
    return list(pool.map(load, names))
