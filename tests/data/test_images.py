"""Pictures from folders and tar files, and how they become the tower's square."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ablab.contract.failure import DataError
from ablab.data.images import Framing, ImageSource, load_all, normalise, pad_to_square

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def picture(width: int = 20, height: int = 10, mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(width * height)
    channels = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    pixels = generator.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(), mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    picture().save(root / "a.png")
    picture(mode="RGBA").save(root / "deep" / "b.png")
    picture(mode="L").save(root / "c.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and nothing else")
    return root


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as file:
        for each in sorted(folder.rglob("*")):
            if each.is_file():
                file.add(each, "./" + each.relative_to(folder).as_posix())
    return path


def test_a_tar_file_holds_what_the_folder_holds(folder: Path, archive: Path) -> None:
    one, other = ImageSource(folder), ImageSource(archive)
    assert list(one.names()) == list(other.names()) == ["a.png", "broken.jpg", "c.png", "deep/b.png"]
    assert dict(one.sizes()) == dict(other.sizes())
    for name in ("a.png", "c.png", "deep/b.png"):
        assert name in other and one.read(name) == other.read(name)
        left, right = one.open(name), other.open(name)
        assert left.mode == "RGB" and np.array_equal(np.asarray(left), np.asarray(right))
    assert "no.png" not in one and "no.png" not in other


def test_transparency_stands_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(ImageSource(tmp_path).open("clear.png")).min() == 255


def test_missing_and_broken_pictures_are_named(folder: Path, archive: Path) -> None:
    for source in (ImageSource(folder), ImageSource(archive)):
        with pytest.raises(DataError, match=r"no\.png"):
            source.open("no.png")
        with pytest.raises(DataError, match=r"broken\.jpg.*cannot be decoded") as caught:
            source.open("broken.jpg")
        assert "BytesIO" not in str(caught.value)
    with pytest.raises(DataError, match="no such folder"):
        ImageSource(folder / "nowhere")
    with pytest.raises(DataError, match="not an uncompressed tar"):
        ImageSource(folder / "a.png").open("x")


@pytest.mark.parametrize("size", [(20, 10), (10, 20), (16, 16), (64, 48)])
def test_padding_then_clips_processor_is_our_frame(size: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image = picture(*size)
    framing = Framing(size=24, aspect="pad", mean=MEAN, std=STD)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    colour = tuple(int(value * 255) for value in processor.image_mean)
    wanted = processor(pad_to_square(image, colour), return_tensors="pt")["pixel_values"][0]
    made = normalise(torch.from_numpy(framing.frame(image)), framing)
    assert torch.allclose(made, wanted, atol=1e-6)


def test_aspects(folder: Path) -> None:
    image = Image.new("RGB", (40, 20), (10, 20, 30))
    padded = Framing(size=20, aspect="pad", mean=(1.0, 0.0, 0.0)).frame(image)
    assert padded[:, 0, 0].tolist() == [255, 0, 0] and padded[:, 10, 10].tolist() == [10, 20, 30]
    for aspect in ("square", "crop"):
        framed = Framing(size=20, aspect=aspect).frame(image)  # type: ignore[arg-type]
        assert framed.shape == (3, 20, 20) and framed[:, 0, 0].tolist() == [10, 20, 30]
    assert np.unique(Framing(size=4, mean=(0.5, 0.5, 0.5)).blank()).tolist() == [127]


def test_loading_side_by_side_keeps_the_order() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        made = load_all(lambda name: np.array([int(name)]), [str(i) for i in range(20)], pool=pool)
    assert [int(each[0]) for each in made] == list(range(20))


def test_a_camera_that_was_turned(tmp_path: Path) -> None:
    image = picture(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    image.save(data, "JPEG", exif=exif)
    (tmp_path / "turned.jpg").write_bytes(data.getvalue())
    assert ImageSource(tmp_path).open("turned.jpg").size == (10, 20)
