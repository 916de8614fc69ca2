"""Captions of scenes and texts about things: short ones as web captions are, detailed ones, and text without image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ablab.data.emoji_questions.asking import article
from ablab.data.emoji_questions.scenes import PLACES, Item, Scene
from ablab.data.emoji_questions.things import LANGUAGES, Thing, Things


def short(scene: Scene, language: str) -> str:
    """Return the names and categories of what is in a scene."""
    return ", ".join(
        f"{drawing.thing.says('category', language)}: {drawing.thing.says('name', language)}"
        for drawing in scene.drawings
    )


def detailed(scene: Scene, language: str) -> str:
    """Return where everything is, what it is and what it belongs to."""
    parts = [_described(item, language) for item in sorted(scene.items, key=lambda item: item.place or 0)]
    return " ".join(parts)


def _described(item: Item, language: str) -> str:
    where = "" if item.place is None else PLACES[item.place][0][LANGUAGES.index(language)]
    if item.drawing is None:
        text = {"en": f"the number {item.number}", "ko": f"숫자 {item.number}"}[language]
        return f"{where}: {text}."
    thing = item.drawing.thing
    kind, category, name = (thing.says(what, language) for what in ("kind", "category", "name"))
    text = {
        "en": f"{kind}, {article(category)} {category}: {name}.",
        "ko": f"{kind}, {category}: {name}.",
    }[language]
    return f"{where}: {text}" if where else text


def texts(things: Things) -> Iterator[dict[str, Any]]:
    """Yield rows without image about the things of training, in both languages, in LLaVA's format."""
    for thing in things.of("train"):
        for number, (question, answer) in enumerate(_facts(thing)):
            yield {
                "id": f"text-{thing.code}-{number}",
                "language": "ko" if any("가" <= letter <= "힣" for letter in question) else "en",
                "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
            }


def _facts(thing: Thing) -> Iterator[tuple[str, str]]:
    (name, name_ko), (category, category_ko), (kind, kind_ko) = thing.name, thing.category, thing.kind
    yield f"What is {name}?", f"{name} is {article(category)} {category}, {kind}."
    yield f"{name_ko}: 무엇입니까?", f"{name_ko}, {category_ko}, {kind_ko}."
    yield f"What category does {name} belong to?", category
    yield f"What is {name} in Korean?", name_ko
    yield f"What is {name_ko} in English?", name
    if thing.gloss:
        yield f"Describe {name}.", thing.gloss
