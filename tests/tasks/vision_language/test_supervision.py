"""Words of the user among the targets are found in any turn; answers alone are not."""

from __future__ import annotations

import pytest

from ablab.data.conversations import Conversation, Turn
from ablab.data.templates import IGNORE
from ablab.tasks.vision_language.supervision import user_supervised

TURNS = (("user", "<image>\nwhat is it"), ("assistant", "a cat"), ("user", "and here"), ("assistant", "and here a dog"))
CONVERSATION = Conversation(id="1", turns=tuple(Turn(role, text) for role, text in TURNS))  # type: ignore[arg-type]
#: One token a character, after a mark for the speaker.
TEXT = "".join(("U" if role == "user" else "A") + text for role, text in TURNS)


def labels_of(*supervised: int) -> tuple[list[int], list[int]]:
    """Return ids and labels with the turns of these places supervised."""
    ids, labels = [], []
    for place, (role, text) in enumerate(TURNS):
        own = [ord(c) for c in ("U" if role == "user" else "A") + text]
        ids += own
        labels += [IGNORE, *own[1:]] if place in supervised else [IGNORE] * len(own)
    return ids, labels


def decode(ids: list[int]) -> str:
    return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("supervised", "found"), [((1, 3), False), ((1, 2, 3), True), ((0, 1), True), ((3,), False), ((), False)]
)
def test_words_of_the_user(supervised: tuple[int, ...], found: bool) -> None:
    # The last answer repeats a question: it is the answer's own.
    assert user_supervised(*labels_of(*supervised), CONVERSATION, decode) is found
