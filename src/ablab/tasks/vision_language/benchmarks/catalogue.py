"""The benchmarks by the name a study gives them: title, code, languages and what they are averaged with; no reading.

A name is one of `ENTRIES`, or `file.py:Name` of a function without parameters that returns a `Benchmark`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablab.contract.registry import RegistryError, find_component, is_file_reference, nearest

if TYPE_CHECKING:
    from ablab.tasks.vision_language.benchmarks.protocol import Benchmark

#: Shorter names (GQA, SQA, WTQ) occur in other words.
_SHORTEST = 5
_PACKAGE = "ablab.tasks.vision_language.benchmarks"


@dataclass(frozen=True, slots=True)
class Entry:
    """A benchmark before its code is loaded.

    Args:
        title: name of its metric, as the logs write it.
        code: "module:attribute" in this package.
        averages: the averages it enters, beside `overall`.
        metric: what its number is, in one sentence.
        headline: full name of the metric that stands for it.
        judged: whether a judge is needed.
        train: whether it has a train split; training data made of one that has none is leakage.
    """

    title: str
    code: str
    metric: str
    averages: tuple[str, ...] = ("english",)
    headline: str = ""
    judged: bool = False
    train: bool = False

    @property
    def main(self) -> str:
        """Full name of the metric that stands for the benchmark."""
        return self.headline or self.title


_VQA = "100 x mean VQA accuracy: over the ten leave-one-out sets of annotators, min(1, matches / 3), normalised."
_ANLS = "100 x average normalised Levenshtein similarity, the best over the accepted answers; below .5 counts 0."
_LETTER = "Percentage of questions whose option letter is right."
_TABLES = ("english", "structured")

ENTRIES: dict[str, Entry] = {
    "gqa": Entry("GQA", "gqa:GQA", "Percentage of exact matches; case and punctuation ignored.", train=True),
    "scienceqa": Entry(
        "SQA", "scienceqa:SQA", "ScienceQA, questions with an image: percentage of right option letters.", train=True
    ),
    "textvqa": Entry("TextVQA", "vqa:TEXTVQA", _VQA, train=True),
    "vqav2": Entry("VQAv2", "vqa:VQAV2", _VQA, train=True),
    "vizwiz": Entry("VizWiz", "vqa:VIZWIZ", _VQA, train=True),
    "mmvet": Entry("MMVet", "mmvet:MMVET", "100 x mean judged correctness, 0 to 1 in steps of .1.", judged=True),
    "pope": Entry(
        "POPE", "pope:POPE", "Mean accuracy of the three splits (random, popular, adversarial).",
        headline="POPE/accuracy",
    ),
    "llava-w": Entry("LLaVA-W", "llava_wild:LLAVA_W", "100 x mean judged score / mean score of the reference's answer.",
                     judged=True),
    "mmbench-en": Entry("MMBench-EN", "mmbench:MMBENCH_EN", "Percentage right under every rotation of the options."),
    "mmbench-ko": Entry(
        "MMBench-KO", "mmbench:MMBENCH_KO", "Percentage right under every rotation of the options.", ("korean",)
    ),
    "mmstar": Entry("MMStar", "choices:MMSTAR", _LETTER),
    "seed-bench": Entry("SEED-Bench", "choices:SEED_BENCH", _LETTER),
    "k-dtcbench": Entry("K-DTCBench", "choices:K_DTCBENCH", _LETTER, ("korean", "structured")),
    "docvqa": Entry("DocVQA", "documents:DOCVQA", _ANLS, _TABLES, train=True),
    "infovqa": Entry("InfoVQA", "documents:INFOVQA", _ANLS, _TABLES, train=True),
    "chartqa": Entry(
        "ChartQA", "charts:CHARTQA", "Percentage within 5 % of a number, or equal to a text.", _TABLES, train=True
    ),
    "charxiv": Entry(
        "CharXiv", "charts:CHARXIV", "Percentage right, as a judge finds; without one by a stricter rule.", _TABLES
    ),
    "ocrbench": Entry("OCRBench", "ocrbench:OCRBENCH", "Answers contained, of 1000.", _TABLES),
    "wtq": Entry("WTQ", "tables:WTQ", "Percentage of answers with the denotation of the target.", _TABLES, train=True),
    "tabfact": Entry("TabFact", "tables:TABFACT", "Percentage of statements judged rightly.", _TABLES, train=True),
    "mathvista": Entry("MathVista", "maths:MATHVISTA", "Percentage equal after extraction and normalisation."),
    "mathverse": Entry("MathVerse", "maths:MATHVERSE", "Percentage equal after extraction and normalisation."),
    "questions": Entry("Questions", "questions:QUESTIONS", "100 x mean of the scorer that the file names.", ()),
}  # fmt: skip


def named_in(text: str) -> str | None:
    """Return the benchmark that the name of a file or of a data set bears, letters and digits compared alone.

    "NCSOFT/K-DTCBench" and "data/kdtcbench_train.json" bear k-dtcbench; the longest name that fits counts.
    """
    plain = _plain(text)
    names = [
        (_plain(spelled), name) for name, entry in ENTRIES.items() if entry.averages for spelled in (name, entry.title)
    ]
    found = [(len(spelled), name) for spelled, name in names if len(spelled) >= _SHORTEST and spelled in plain]
    return max(found)[1] if found else None


def _plain(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())


def check_name(name: str) -> str | None:
    """Return what is wrong with the name of a benchmark, with the nearest valid name; None when nothing is."""
    if name in ENTRIES or is_file_reference(name):
        return None
    near = nearest(name.lower(), ENTRIES)
    hint = f"; did you mean {near}?" if near else ""
    return f"unknown benchmark {name!r}{hint} Known: {', '.join(ENTRIES)}, or file.py:Name"


def find_benchmark(name: str, *, folder: Path | str | None = None) -> Benchmark:
    """Return a benchmark by its name.

    Raises:
        RegistryError: there is none; the message names the nearest.
    """
    from ablab.tasks.vision_language.benchmarks.protocol import Benchmark

    if is_file_reference(name):
        made = find_component(name, folder=folder, like=own_benchmark)()
        if not isinstance(made, Benchmark):
            raise RegistryError(f"{name} returned {type(made).__name__}, expected a Benchmark")
        return made
    problem = check_name(name)
    if problem is not None:
        raise RegistryError(problem, nearest(name, ENTRIES))
    module, _, attribute = ENTRIES[name].code.partition(":")
    found = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), attribute)
    assert isinstance(found, Benchmark)
    return found


def own_benchmark() -> Benchmark:
    """Stand for the signature of a benchmark of one's own."""
    raise TypeError("only its signature is used")
