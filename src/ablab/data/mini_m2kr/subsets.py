"""Queries and passages of four shapes, after the four subsets of M2KR that the first run trained on.

What differs between them is what differed there: how many queries share a passage, how many passages answer a query,
how long passages are, what is missing, and how much larger the searched pool is than what is asked about.
"""

from __future__ import annotations

import lzma
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from ablab import bundled
from ablab.contract.failure import ConfigError
from ablab.contract.seeds import stream_seed
from ablab.data.emoji import Concept
from ablab.data.mini_m2kr.questions import Kind, Language, answers_to, ask
from ablab.data.sources import SPLITS, Split

_LANGUAGES: tuple[Language, ...] = ("en", "ko")
#: Keywords of a passage where a concept is told in chunks; 0: the concept has no more than its gloss.
_CHUNKS = (0, 1, 3, 3)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What makes a subset the one it stands for.

    Args:
        task: what the hub calls the data set it stands for.
        share: share of the concepts that are asked about.
        kinds: kinds of the questions of a concept, in both languages alternately.
        telling: passages of a concept: `entry` is one, `aspects` is gloss, keywords and Korean name each, `chunks`
            splits keywords into passages of three or of one, `article` is one long passage and one Korean one.
        queries_without_image, passages_without_image: shares that lack it.
        pool: what is searched: `split`: passages of the split's concepts; `all`: of all concepts, but in train only of
            its own, so that negatives mined there are of no concept of the test.
        distractors: texts of the dictionary without picture that are added to the pool.
    """

    task: str
    share: float
    kinds: tuple[Kind, ...]
    telling: Literal["entry", "aspects", "chunks", "article"]
    queries_without_image: float = 0.0
    passages_without_image: float = 0.0
    pool: Literal["split", "all"] = "all"
    distractors: int = 0


SHAPES: Mapping[str, Shape] = {
    "oven": Shape(task="OVEN", share=0.35, kinds=("name",) * 12, telling="entry", pool="split"),
    "infoseek": Shape(
        task="Infoseek",
        share=1.0,
        kinds=("name", "words", "group", "name"),
        telling="chunks",
        passages_without_image=0.0431,
    ),
    "evqa": Shape(task="EVQA", share=0.6, kinds=("name", "group", "name", "words"), telling="article"),
    "okvqa": Shape(
        task="OKVQA",
        share=0.4,
        kinds=("words", "name"),
        telling="aspects",
        queries_without_image=0.04,
        passages_without_image=0.08,
        distractors=3000,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A text to be found, with its picture (a member of the image file) where it has one."""

    id: str
    text: str
    image: str | None
    title: str
    language: Language


@dataclass(frozen=True, kw_only=True)
class Query:
    """A question with its positives. `id` is read by `parts_of`."""

    id: str
    instruction: str
    question: str
    image: str | None
    answers: tuple[str, ...]
    positives: tuple[str, ...]
    concept: Concept
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Queries and searched pool of each split; a positive is always in the pool of its split."""

    name: str
    shape: Shape
    queries: dict[Split, list[Query]]
    pools: dict[Split, list[Passage]]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the id of a query says. `kind` words: its text tells what is meant; otherwise only the picture does."""

    subset: str
    split: Split
    code: str
    kind: Kind
    language: Language


def parts_of(query_id: str) -> Parts:
    """Return what the id of a generated query says.

    Raises:
        ConfigError: it is not one.
    """
    pieces = query_id.split("/")
    if len(pieces) != 6:
        raise ConfigError(f"{query_id!r} is no id of the generated set; expected subset/split/code/kind/language/n")
    subset, split, code, kind, language, _ = pieces
    return Parts(subset=subset, split=split, code=code, kind=kind, language=language)  # type: ignore[arg-type]


def generate(
    concepts: Sequence[Concept],
    *,
    subset: str,
    division: Mapping[str, Split],
    seed: int = 2357,
    vendors: tuple[str, str] = ("google", "twitter"),
    shape: Shape | None = None,
) -> Subset:
    """Return the queries and pools of a subset.

    Args:
        concepts: what is asked about.
        subset: name; one of `SHAPES` where no shape is given.
        division: split of every concept, by code.
        seed: draws wordings, gaps and which concepts are asked about.
        vendors: whose drawing stands in the query, and whose in the passage.
        shape: of the subset.

    Raises:
        ConfigError: there is no such subset.
    """
    shape = shape or SHAPES.get(subset)
    if shape is None:
        raise ConfigError(f"no subset {subset!r}; there are {', '.join(SHAPES)}")
    told = {concept.code: _tell(concept, shape, subset, seed, vendors[1]) for concept in concepts}
    glosses = Counter(concept.gloss for concept in concepts)
    queries: dict[Split, list[Query]] = {split: [] for split in SPLITS}
    for concept in concepts:
        if _draw(seed, subset, "asked", concept.code) < shape.share:
            split = division[concept.code]
            queries[split] += _questions(
                concept,
                told[concept.code],
                shape=shape,
                subset=subset,
                split=split,
                seed=seed,
                vendor=vendors[0],
                glossed=glosses[concept.gloss] == 1,
            )
    extra = _distractors(shape.distractors, subset, seed)
    pools = {
        split: [
            passage
            for concept in concepts
            if _searched(shape, split, division[concept.code])
            for passage in told[concept.code]
        ]
        + extra
        for split in SPLITS
    }
    return Subset(name=subset, shape=shape, queries=queries, pools=pools)


def _searched(shape: Shape, split: Split, of: Split) -> bool:
    return of == split or (shape.pool == "all" and (split == "test" or of == "train"))


def _draw(seed: int, subset: str, what: str, name: str) -> float:
    return stream_seed(seed, f"mini-m2kr/{subset}/{what}/{name}") / 2**63


def _questions(
    concept: Concept,
    passages: Sequence[Passage],
    *,
    shape: Shape,
    subset: str,
    split: Split,
    seed: int,
    vendor: str,
    glossed: bool,
) -> list[Query]:
    random = Random(stream_seed(seed, f"mini-m2kr/{subset}/questions/{concept.code}"))
    found = []
    for i, kind in enumerate(shape.kinds):
        # Korean starts as often as English, so that a kind asked once a concept comes in both.
        language = _LANGUAGES[(i + (_draw(seed, subset, "first", concept.code) < 0.5)) % 2]
        instruction, question, asked = ask(
            concept, kind=kind, language=language, random=random, nth=i // 2, glossed=glossed
        )
        blind = asked == "words" and random.random() < shape.queries_without_image / _words_share(shape)
        found.append(
            Query(
                id=f"{subset}/{split}/{concept.code}/{asked}/{language}/{i}",
                instruction=instruction,
                question=question,
                image=None if blind else f"{vendor}/{concept.code}.png",
                answers=answers_to(concept, kind=asked),
                positives=tuple(passage.id for passage in passages),
                concept=concept,
                kind=asked,
            )
        )
    return found


def _words_share(shape: Shape) -> float:
    """Return the share of questions that can be answered without a picture; only those may lack it."""
    return max(shape.kinds.count("words") / len(shape.kinds), 1e-9)


def _tell(concept: Concept, shape: Shape, subset: str, seed: int, vendor: str) -> list[Passage]:
    found = []
    chunk = _CHUNKS[int(len(_CHUNKS) * _draw(seed, subset, "chunk", concept.code))]
    for name, language, text in _texts(concept, shape.telling, chunk):
        passage_id = f"{subset}/{concept.code}/{name}"
        bare = _draw(seed, subset, "bare", passage_id) < shape.passages_without_image
        found.append(
            Passage(
                id=passage_id,
                text=text,
                image=None if bare else f"{vendor}/{concept.code}.png",
                title=concept.name if language == "en" else concept.name_ko,
                language=language,
            )
        )
    return found


def _texts(concept: Concept, telling: str, chunk: int) -> Iterable[tuple[str, Language, str]]:
    """Yield (name, language, text) of the passages of a concept."""
    gloss = f"{concept.name}: {_explained(concept)}."
    group, group_ko = f"It belongs to {concept.group_words}.", f"분류: {concept.group_ko}."
    tags = f"{concept.name}. Keywords: {', '.join(concept.tags)}."
    korean = f"{concept.name_ko}. 주제어: {', '.join(concept.tags_ko)}."
    if telling == "entry":
        yield "entry", "en", f"{gloss} {group} {concept.name_ko}."
    elif telling == "article":
        yield "article", "en", f"{gloss} {group} Keywords: {', '.join(concept.tags)}. Korean: {concept.name_ko}."
        yield "article-ko", "ko", f"{korean} {group_ko} 영어: {concept.name}."
    else:
        yield "gloss", "en", f"{gloss} {group}"
        if telling == "chunks" and not chunk:
            return
        if telling == "chunks":
            for i in range(0, len(concept.tags), chunk):
                part = ", ".join(concept.tags[i : i + chunk])
                yield f"tags-{i // chunk}", "en", f"{concept.name} has to do with {part}. {group}"
        elif concept.tags:
            yield "tags", "en", tags
        yield "ko", "ko", f"{korean} {group_ko}"


def _explained(concept: Concept) -> str:
    if concept.gloss is None:
        return f"something of the kind {concept.subgroup_words}"
    return concept.gloss if concept.lemma in (None, concept.name) else f"{concept.lemma}, {concept.gloss}"


def _distractors(count: int, subset: str, seed: int) -> list[Passage]:
    """Return texts of the dictionary that no question is about."""
    if not count:
        return []
    with lzma.open(bundled.path("wordnet") / "glosses.txt.xz", "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    chosen = Random(stream_seed(seed, f"mini-m2kr/{subset}/distractors")).sample(range(len(lines)), count)
    return [
        Passage(
            id=f"{subset}/wordnet/{place}",
            text=lines[place],
            image=None,
            title=lines[place].partition(" (")[0],
            language="en",
        )
        for place in sorted(chosen)
    ]
