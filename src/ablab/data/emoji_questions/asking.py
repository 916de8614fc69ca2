"""Questions and answers about a scene: kind, category, name, choice, yes or no, number of things, place, digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ablab.data.emoji_questions.scenes import PLACES, Scene
from ablab.data.emoji_questions.things import LANGUAGES, Thing, Things

#: Instructions that published training mixtures and benchmarks put behind a question.
SHORT = {"en": "\nAnswer the question using a single word or phrase.", "ko": "\n한 단어나 구로 답하세요."}
LETTER = "Answer with the option's letter from the given choices directly."
YES = {"en": ("yes", "no"), "ko": ("예", "아니요")}
LETTERS = "ABCD"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One question about a scene.

    Args:
        family: what is asked for (kind, category, name, choice, presence, count, place, digits).
        question: without instruction.
        answer: the one wanted.
        language: of both.
        choices: options of a choice.
        group: adversarial, popular or random, for presence.
        accepted: other answers that count, for names.
    """

    family: str
    question: str
    answer: str
    language: str = "en"
    choices: tuple[str, ...] = ()
    group: str = ""
    accepted: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The question with its instruction."""
        if self.choices:
            options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, self.choices, strict=False))
            return f"{self.question}\n{options}\n{LETTER}"
        return self.question + SHORT[self.language]


class Asker:
    """Makes questions about scenes.

    Args:
        things: whose categories questions name.
        korean: share of the questions in Korean.
    """

    def __init__(self, things: Things, *, korean: float) -> None:
        self._things, self._korean = things, korean
        self._families: dict[str, Callable[[Scene, np.random.Generator, str], Asked | None]] = {
            "kind": self.kind,
            "category": self.category,
            "name": self.name,
            "choice": self.choice,
            "presence": self.presence,
            "count": self.count,
            "place": self.place,
            "digits": self.digits,
        }

    def ask(self, family: str, scene: Scene, generator: np.random.Generator, *, language: str | None = None) -> Asked:
        """Return a question of a family.

        Raises:
            ValueError: the scene holds nothing that it could ask for.
        """
        if language is None:
            language = LANGUAGES[int(generator.random() < self._korean)]
        made = self._families[family](scene, generator, language)
        if made is None:
            raise ValueError(f"nothing in this scene can be asked for its {family}")
        return made

    def families(self, scene: Scene) -> list[str]:
        """Return what can be asked about a scene."""
        if len(scene.items) == 1:
            return ["kind", "category", "name", "choice", "presence"]
        found = ["presence", "count"]
        if _unique(scene):
            found.append("place")
        return [*found, "digits"] if scene.number is not None else found

    def kind(self, scene: Scene, generator: np.random.Generator, language: str) -> Asked:
        """Ask what kind of thing it is: one of eight words."""
        question = {"en": "What kind of thing is this?", "ko": "이것은 어떤 종류입니까?"}[language]
        return Asked(family="kind", question=question, answer=_only(scene).says("kind", language), language=language)

    def category(self, scene: Scene, generator: np.random.Generator, language: str) -> Asked:
        """Ask for its category: one of about forty."""
        question = {"en": "What category does this belong to?", "ko": "이것은 어떤 범주에 속합니까?"}[language]
        answer = _only(scene).says("category", language)
        return Asked(family="category", question=question, answer=answer, language=language)

    def name(self, scene: Scene, generator: np.random.Generator, language: str) -> Asked:
        """Ask what it is called."""
        thing = _only(scene)
        question = {"en": "What is this called?", "ko": "이것의 이름은 무엇입니까?"}[language]
        accepted = thing.tags if language == "en" else ()
        return Asked(
            family="name", question=question, answer=thing.says("name", language), language=language, accepted=accepted
        )

    def choice(self, scene: Scene, generator: np.random.Generator, language: str) -> Asked:
        """Ask which of four categories it belongs to; always in English, like the benchmark of this form."""
        right = _only(scene).category
        others = [category for category in self._things.categories if category != right]
        picked = [others[i] for i in generator.choice(len(others), 3, replace=False)]
        place = int(generator.integers(4))
        picked.insert(place, right)
        return Asked(
            family="choice",
            question="Which of these is in the picture?",
            answer=LETTERS[place],
            choices=tuple(category[0] for category in picked),
        )

    def presence(self, scene: Scene, generator: np.random.Generator, language: str) -> Asked:
        """Ask, half of the time rightly, whether something of a category is there; wrong ones as POPE samples them."""
        group = ("random", "popular", "adversarial")[int(generator.integers(3))]
        return self.present(scene, generator, language, there=bool(generator.integers(2)), group=group)

    def present(self, scene: Scene, generator: np.random.Generator, language: str, *, there: bool, group: str) -> Asked:
        """Ask whether something of a category is there.

        Args:
            scene: the picture.
            generator: draws the category.
            language: of the question.
            there: whether the answer is yes.
            group: how an absent category is drawn: random; popular, of the most frequent ones; adversarial, of the same
                kind as something that is there.
        """
        inside = sorted(scene.categories)
        if there:
            pool = inside
        else:
            absent = [category for category in self._things.categories if category not in inside]
            near = [c for one in inside for c in self._things.siblings.get(one, ()) if c in absent]
            pool = {"popular": absent[:8], "adversarial": near or absent}.get(group, absent)
        asked = pool[int(generator.integers(len(pool)))]
        word = asked[LANGUAGES.index(language)]
        question = {
            "en": f"Is there {article(word)} {word} in the image?",
            "ko": f"이 그림에 {word} 항목이 있습니까?",
        }[language]
        answer = YES[language][0 if there else 1]
        return Asked(family="presence", question=question, answer=answer, language=language, group=group)

    def count(self, scene: Scene, generator: np.random.Generator, language: str) -> Asked:
        """Ask how many things there are."""
        question = {"en": "How many things are in the image?", "ko": "그림에 몇 개가 있습니까?"}[language]
        return Asked(family="count", question=question, answer=str(len(scene.items)), language=language)

    def place(self, scene: Scene, generator: np.random.Generator, language: str) -> Asked | None:
        """Ask where the only thing of a category is."""
        unique = _unique(scene)
        if not unique:
            return None
        item = scene.items[unique[int(generator.integers(len(unique)))]]
        if item.drawing is None or item.place is None:
            return None
        word = item.drawing.thing.says("category", language)
        question = {"en": f"Where is the {word}?", "ko": f"{word} 항목은 어디에 있습니까?"}[language]
        answer = PLACES[item.place][0][LANGUAGES.index(language)]
        return Asked(family="place", question=question, answer=answer, language=language)

    def digits(self, scene: Scene, generator: np.random.Generator, language: str) -> Asked | None:
        """Ask for the number that is written."""
        item = scene.number
        if item is None:
            return None
        question = {"en": "What number is written?", "ko": "어떤 숫자가 쓰여 있습니까?"}[language]
        return Asked(family="digits", question=question, answer=str(item.number), language=language)


def _only(scene: Scene) -> Thing:
    (drawing,) = scene.drawings
    return drawing.thing


def _unique(scene: Scene) -> list[int]:
    """Return the places among the items of those whose category no other has."""
    categories = [None if item.drawing is None else item.drawing.thing.category for item in scene.items]
    return [i for i, category in enumerate(categories) if category is not None and categories.count(category) == 1]


def article(word: str) -> str:
    """Return the article of a word."""
    return "an" if word[0] in "aeiou" else "a"


def questions(
    asker: Asker, scene: Scene, generator: np.random.Generator, *, turns: int, families: Sequence[str] = ()
) -> list[Asked]:
    """Return up to `turns` different questions about a scene."""
    can = [family for family in asker.families(scene) if not families or family in families]
    made: dict[str, Asked] = {}
    language: str | None = None
    for _ in range(turns * 2):
        family = can[int(generator.integers(len(can)))]
        if made and family == "choice":
            # Its options and instruction belong to a first question.
            continue
        one = asker.ask(family, scene, generator, language=language)
        if one.choices:
            return [one]
        language = one.language
        made.setdefault(one.prompt, one)
        if len(made) == turns:
            break
    return list(made.values())
