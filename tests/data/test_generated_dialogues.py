"""The generated corpus: seeded, disjoint between splits, grammatical particles, and harder than its first lines."""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import Any

import pytest

from ablab.contract.failure import ConfigError
from ablab.data.generated_dialogues import LANGUAGES, Split, generate_dialogues, load_scenes
from ablab.data.korean import PARTICLES, with_particle
from ablab.metrics.rouge import corpus_rouge
from ablab.metrics.text_tokens import words

SPEAKER = re.compile(r"#Person(\d)#")


@cache
def rows_of(split: Split, count: int = 600, seed: int = 5) -> list[dict[str, Any]]:
    return list(generate_dialogues(split, rows=count, seed=seed))


def test_rows_are_a_function_of_seed_and_number() -> None:
    assert rows_of("train")[:20] == list(generate_dialogues("train", rows=20, seed=5))
    assert rows_of("train")[:20] != list(generate_dialogues("train", rows=20, seed=6))
    assert len({row["fname"] for row in rows_of("train")}) == 600
    assert [row["language"] for row in rows_of("test")[:4]] == ["ko", "en", "ko", "en"]
    assert {row["language"] for row in generate_dialogues("train", rows=9, languages=["en"])} == {"en"}


def test_rows_have_the_form_of_the_task() -> None:
    people = set()
    for row in itertools.chain(rows_of("train"), rows_of("test")):
        turns = row["dialogue"].split("\n")
        assert all(re.match(r"#Person\d#: \S", turn) for turn in turns)
        speakers = [SPEAKER.match(turn)[1] for turn in turns]  # type: ignore[index]
        assert list(dict.fromkeys(speakers)) == [str(n + 1) for n in range(len(set(speakers)))], "not in order"
        assert all(one != other for one, other in itertools.pairwise(speakers)), "nobody answers themselves"
        people.add(len(set(speakers)))
        assert len(row["summaries"]) == len(set(row["summaries"])) == 3
        assert all(set(SPEAKER.findall(summary)) <= set(speakers) for summary in row["summaries"])
        text = row["dialogue"] + "".join(row["summaries"])
        assert not re.search(r"[{}]|\.\.|  ", text)
        assert "generated" in row["source"]
    assert people == {2, 3, 4, 5, 6, 7}


def test_personal_data_are_tags() -> None:
    tags = set(
        re.findall(r"#[A-Z]\w+#", "\n".join(row["dialogue"] for row in (*rows_of("train"), *rows_of("pretraining"))))
    )
    named = {"PhoneNumber", "Address", "DateOfBirth", "PassportNumber", "CardNumber", "CarNumber", "Email"}
    assert {f"#{name}#" for name in named} <= tags
    assert not [row for row in rows_of("train") if re.search(r"\d{4}-|@", row["dialogue"])]


def test_no_wording_of_test_is_in_training() -> None:
    for language in LANGUAGES:
        scenes = load_scenes(language)
        train, test = (
            {
                wording
                for scene in scenes.scenes
                for wordings in (*(turn.wordings for turn in scene.turns), scene.summaries, scene.agreements)
                for wording in wordings[side]
            }
            | {
                said
                for scene in scenes.scenes
                for asked, answered, _ in scene.small_talk[side]
                for said in (asked, answered)
            }
            | set(scenes.fillers[side])
            for side in (0, 1)
        )
        assert not train & test
        assert len(train) > 300
        assert len(test) > 200
        assert all(len(scene.summaries[0]) >= 3 and len(scene.summaries[1]) >= 3 for scene in scenes.scenes)


def test_splits_share_no_dialogue_and_validation_no_story_of_training() -> None:
    seen = {split: {row["dialogue"] for row in rows_of(split, 900)} for split in ("train", "val", "test")}  # type: ignore[arg-type]
    assert all(len(dialogues) == 900 for dialogues in seen.values())
    for one, other in itertools.combinations(seen, 2):
        assert not seen[one] & seen[other]
    stories = {split: _visits(rows_of(split, 900)) for split in ("train", "val")}  # type: ignore[arg-type]
    assert len(stories["val"]) > 15
    assert not stories["train"] & stories["val"]


def _visits(rows: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    """Return the values of each visit to a doctor, found again in what is said."""
    scenes = load_scenes("en")
    slots = next(scene.slots for scene in scenes.scenes if scene.name == "clinic")
    found = set()
    for row in rows:
        if row["topic"] == "see a doctor":
            text = row["dialogue"].lower()
            said = ((v, f"on {v}" if name == "day" else v) for name in slots.values() for v in scenes.values[name])
            story = tuple(value for value, form in said if form.lower() in text)
            assert len(story) == 4, (story, text)
            found.add(story)
    return found


def test_both_languages_tell_the_same_scenes() -> None:
    korean, english = (load_scenes(language).scenes for language in LANGUAGES)
    for one, other in zip(korean, english, strict=True):
        assert (one.name, one.slots, one.many) == (other.name, other.slots, other.many)
        assert [turn.by for turn in one.turns] == [turn.by for turn in other.turns]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_slot_of_every_wording_has_values(language: Any) -> None:
    scenes = load_scenes(language)
    for scene in scenes.scenes:
        known = {*scene.slots, *"ABCD"} if scene.many else {*scene.slots, *"AB"}
        wordings = [w for turn in scene.turns for side in turn.wordings for w in side]
        wordings += [w for side in scene.summaries for w in side]
        for wording in wordings:
            for name, inflection in re.findall(r"\{(\w+)(?::([^}]+))?\}", wording):
                assert name in known, (scene.name, wording)
                assert inflection in {"", *(PARTICLES if language == "ko" else ("a",))}, (scene.name, wording)
        assert set(scene.slots.values()) <= set(scenes.values)


def test_first_lines_are_a_poor_summary() -> None:
    rows = rows_of("test")
    references = [row["summaries"] for row in rows]
    lead = [" ".join(row["dialogue"].split("\n")[:3]) for row in rows]
    copy = [row["dialogue"] for row in rows]
    one, rest = [row["summaries"][0] for row in rows], [row["summaries"][1:] for row in rows]
    scores = {
        name: corpus_rouge(texts, wanted, tokenizer=words, resamples=10).means["rouge1"].value
        for name, texts, wanted in (("lead", lead, references), ("copy", copy, references), ("person", one, rest))
    }
    assert scores["lead"] < scores["person"] - 0.2
    assert scores["copy"] < scores["person"] - 0.2


def test_too_many_rows_and_unknown_languages_are_refused() -> None:
    with pytest.raises(ConfigError, match="found fr"):
        next(generate_dialogues("train", rows=1, languages=["fr"]))  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("운동화", "운동화는 운동화가 운동화를 운동화와 운동화로"),
        ("노트북", "노트북은 노트북이 노트북을 노트북과 노트북으로"),
        ("지하철", "지하철은 지하철이 지하철을 지하철과 지하철로"),
        ("3", "3은 3이 3을 3과 3으로"),
        ("8", "8은 8이 8을 8과 8로"),
        ("9", "9는 9가 9를 9와 9로"),
        ("#Person1#", "#Person1#은 #Person1#이 #Person1#을 #Person1#과 #Person1#으로"),
        ("#Person2#", "#Person2#는 #Person2#가 #Person2#를 #Person2#와 #Person2#로"),
        ("#Email#", "#Email#은 #Email#이 #Email#을 #Email#과 #Email#로"),
        ("#SSN#", "#SSN#은 #SSN#이 #SSN#을 #SSN#과 #SSN#으로"),
        ("#Address#", "#Address#는 #Address#가 #Address#를 #Address#와 #Address#로"),
    ],
)
def test_particles_follow_the_last_sound(word: str, forms: str) -> None:
    assert " ".join(with_particle(word, particle) for particle in ("은", "이", "을", "과", "으로")) == forms


def test_an_unknown_particle_is_refused() -> None:
    with pytest.raises(ConfigError, match="no particle '에게'"):
        with_particle("말", "에게")
