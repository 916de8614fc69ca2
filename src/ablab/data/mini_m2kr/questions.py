"""The words of the questions, English and Korean; what is asked about comes from the concept."""

from __future__ import annotations

from random import Random
from typing import Literal

from ablab.data.emoji import Concept

Language = Literal["en", "ko"]
#: name and group: only the picture tells what is meant. words: keywords or the gloss tell it too.
Kind = Literal["name", "group", "words"]

INSTRUCTIONS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Using the picture, find a text that answers the question:",
        "Look at the picture and retrieve the entry that the question asks for:",
        "Find the passage that answers this question about the picture:",
        "With the help of the drawing, look up what is asked:",
    ),
    "ko": (
        "그림을 보고 질문에 답하는 글을 찾으세요:",
        "주어진 그림에 대한 질문의 답이 있는 글을 고르세요:",
        "그림을 참고하여 질문에 맞는 항목을 찾으세요:",
    ),
}
_NAME: dict[Language, tuple[str, ...]] = {
    "en": (
        "what is this?",
        "what is shown in this picture?",
        "what is the name of this?",
        "which entry describes this picture?",
        "what does this drawing show?",
        "what do you call this?",
        "how is this called?",
        "can you name what is drawn here?",
    ),
    "ko": (
        "이것은 무엇인가요?",
        "그림에 무엇이 있나요?",
        "이것의 이름은 무엇인가요?",
        "이 그림을 설명하는 글은 어느 것인가요?",
        "무엇을 그린 그림인가요?",
        "이것을 뭐라고 부르나요?",
    ),
}
_GROUP: dict[Language, tuple[str, ...]] = {
    "en": ("which group does this belong to?", "what kind of thing is this?", "in which category is this listed?"),
    "ko": ("이것은 어느 분류에 속하나요?", "이것은 어떤 종류인가요?"),
}
_WORDS: dict[Language, tuple[str, ...]] = {
    "en": ("which drawing has to do with {words}?", "what is about {words}?", "who or what goes with {words}?"),
    "ko": ("{words}에 관한 것은 무엇인가요?", "{words} 하면 떠오르는 것은 무엇인가요?"),
}
_GLOSSED = ("which entry is explained as {words} ...?", "what is {words} ...?")


def ask(
    concept: Concept, *, kind: Kind, language: Language, random: Random, nth: int = 0, glossed: bool = True
) -> tuple[str, str, Kind]:
    """Return instruction, question and the kind it became.

    Args:
        concept: what is asked about.
        kind: what the question tells; `words` becomes `name` where the concept has no words in the language.
        language: of instruction and question.
        random: draws the wording.
        nth: number of this question about the concept; wordings repeat only after all were used.
        glossed: whether its gloss tells it from all other concepts.
    """
    instruction = random.choice(INSTRUCTIONS[language])
    if kind == "words":
        question = _with_words(concept, language, random, glossed=glossed)
        if question is not None:
            return instruction, question, kind
        kind = "name"
    wordings = (_GROUP if kind == "group" else _NAME)[language]
    return instruction, wordings[nth % len(wordings)], kind


def answers_to(concept: Concept, *, kind: Kind) -> tuple[str, ...]:
    """Return what may stand in a passage that answers, in both languages."""
    return (concept.group_words, concept.group_ko) if kind == "group" else (concept.name, concept.name_ko)


def _with_words(concept: Concept, language: Language, random: Random, *, glossed: bool) -> str | None:
    if language == "en" and glossed and concept.gloss and random.random() < 0.5:
        return random.choice(_GLOSSED).format(words=" ".join(concept.gloss.split()[:8]).rstrip(",;:"))
    tags = concept.tags if language == "en" else concept.tags_ko
    if not tags:
        return None
    chosen = random.sample(tags, min(2, len(tags)))
    return random.choice(_WORDS[language]).format(words=", ".join(chosen))
