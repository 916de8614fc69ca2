"""Writes a set of rendered pictures in LLaVA's format: `<name>.jsonl` and `images.tar`, and what is true of each.

A sample is a function of seed, kind, language and number alone: sets of other sizes begin alike, and any number of
processes writes the same bytes.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ablab.contract.seeds import stream_seed
from ablab.data.rendering.augmentation import augment
from ablab.data.rendering.charts import chart
from ablab.data.rendering.documents import document
from ablab.data.rendering.fonts import usable_fonts
from ablab.data.rendering.lines import line
from ablab.data.rendering.sample import Sample
from ablab.data.rendering.settings import KINDS, Kind, Rendered
from ablab.data.rendering.tables import table
from ablab.data.rendering.wording import Language, Wording, load_wording

IMAGES = "images.tar"
#: Written behind a question whose answer is a word, a number or a value.
_SHORT = {"en": "\nAnswer the question using a single word or phrase.", "ko": "\n한 단어나 짧은 구로 답하세요."}

Maker = Callable[[Wording, Sequence[Path], Language, np.random.Generator, int], Sample]
MAKERS: dict[Kind, Maker] = {"line": line, "document": document, "table": table, "chart": chart}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Which sample of a set: its number, kind and language."""

    number: int
    kind: Kind
    language: Language

    @property
    def name(self) -> str:
        """Name of its picture."""
        return f"{self.kind}-{self.language}-{self.number:07d}.png"


def places(settings: Rendered) -> Iterator[Place]:
    """Yield the samples of a set; kinds, and languages within each, are spread evenly at every length."""
    weights = {kind: settings.kinds.get(kind, 0.0) for kind in KINDS}
    total = sum(weights.values())
    owed = dict.fromkeys(KINDS, 0.0)
    # Every other kind begins with the other language, so that the shares of few rows are met too.
    korean = {kind: -0.5 * (i % 2) for i, kind in enumerate(KINDS)}
    counts: Counter[tuple[Kind, Language]] = Counter()
    for _ in range(settings.rows):
        for kind in KINDS:
            owed[kind] += weights[kind] / total
        kind = max(KINDS, key=lambda one: owed[one])
        owed[kind] -= 1
        korean[kind] += settings.korean
        language: Language = "ko" if korean[kind] >= 0.5 else "en"
        korean[kind] -= language == "ko"
        yield Place(number=counts[kind, language], kind=kind, language=language)
        counts[kind, language] += 1


def make(place: Place, settings: Rendered, fonts: tuple[Path, ...]) -> Sample:
    """Return one sample, augmented; its boxes are those before augmentation."""
    generator = np.random.default_rng(
        stream_seed(settings.seed, f"rendering/{place.kind}/{place.language}", place.number)
    )
    drawn = MAKERS[place.kind](_wording(fonts), fonts, place.language, generator, settings.questions)
    image = augment(drawn.image, level=settings.augmentation, paper=drawn.paper, generator=generator)
    return Sample(image=image, written=drawn.written, turns=drawn.turns, language=drawn.language, paper=drawn.paper)


@cache
def _wording(fonts: tuple[Path, ...]) -> Wording:
    return load_wording(fonts)


def write_rendered(
    folder: Path, settings: Rendered, *, name: str = "rendered",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """Write a set into a folder and return what it holds.

    Args:
        folder: gets `<name>.jsonl` (LLaVA's rows) and `images.tar`.
        settings: what is drawn.
        name: of the set; part of its rows' ids.
        progress: called with pictures done and all pictures; may raise to stop.

    Raises:
        ConfigError: there is no font with Korean letters, or no matplotlib.
    """
    fonts = usable_fonts(settings.fonts)
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    questions = 0
    with (
        tarfile.open(folder / IMAGES, "w") as archive,
        (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file,
    ):
        for done, (place, data, row) in enumerate(_made(settings, fonts, name)):
            progress(done, settings.rows)
            member = tarfile.TarInfo(place.name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            file.write(row + "\n")
            counts[place.kind] += 1
            counts[place.language] += 1
            questions += row.count('"from": "human"')
    return {
        "pictures": settings.rows,
        "questions": questions,
        "fonts": [path.name for path in fonts],
        **{f"pictures.{part}": count for part, count in sorted(counts.items())},
    }


def _made(settings: Rendered, fonts: tuple[Path, ...], name: str) -> Iterator[tuple[Place, bytes, str]]:
    work = partial(_encoded, settings=settings, fonts=fonts, name=name)
    if settings.workers == 1:
        yield from map(work, places(settings))
        return
    # Spawned, since a process forked beside threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.workers, mp_context=context) as pool:
        yield from pool.map(work, places(settings), chunksize=32)


def _encoded(place: Place, *, settings: Rendered, fonts: tuple[Path, ...], name: str) -> tuple[Place, bytes, str]:
    sample = make(place, settings, fonts)
    stream = io.BytesIO()
    sample.image.save(stream, "PNG", compress_level=1)
    return place, stream.getvalue(), json.dumps(row_of(place, sample, name), ensure_ascii=False)


def row_of(place: Place, sample: Sample, name: str) -> dict[str, Any]:
    """Return a sample as LLaVA's row, with its kind, language and the texts that stand in the picture."""
    turns = []
    for i, turn in enumerate(sample.turns):
        asked = turn.question + (_SHORT[sample.language] if turn.short and place.kind != "line" else "")
        turns += [
            {"from": "human", "value": f"<image>\n{asked}" if i == 0 else asked},
            {"from": "gpt", "value": turn.answer},
        ]
    return {
        "id": f"{name}-{place.name.removesuffix('.png')}",
        "image": place.name,
        "conversations": turns,
        "kind": place.kind,
        "language": place.language,
        "texts": [one.text for one in sample.written],
    }
