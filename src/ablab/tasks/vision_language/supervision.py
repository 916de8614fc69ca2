"""What of a conversation is supervised, read back from the labels: are words of the user among the targets?

Labels are made by `ablab.data.templates`; this looks at the result as a reader would, so that a template of one's own
whose mask ends at the first answer is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ablab.data.conversations import IMAGE, Conversation
from ablab.data.templates import IGNORE


def user_supervised(
    ids: Sequence[int], labels: Sequence[int], conversation: Conversation, decode: Callable[[list[int]], str]
) -> bool:
    """Tell whether the targets hold something the user says more often than the assistant says it.

    Args:
        ids: tokens of the conversation (T,).
        labels: of each token (T,), IGNORE where nothing is supervised.
        conversation: its turns.
        decode: tokens to text, without special ones.
    """
    targets = [_bare(decode(span)) for span in _spans(ids, labels)]
    answers = [_bare(turn.text) for turn in conversation.turns if turn.role == "assistant"]
    questions = {_bare(turn.text.replace(IMAGE, "")) for turn in conversation.turns if turn.role == "user"} - {""}
    return any(_count(said, targets) > _count(said, answers) for said in questions)


def _spans(ids: Sequence[int], labels: Sequence[int]) -> Iterator[list[int]]:
    """Yield the runs of supervised tokens."""
    run: list[int] = []
    for token, label in zip(ids, labels, strict=True):
        if label != IGNORE:
            run.append(int(token))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _bare(text: str) -> str:
    """Return a text without white space, which tokenizers do not give back as it was."""
    return "".join(text.split())


def _count(said: str, texts: Sequence[str]) -> int:
    return sum(text.count(said) for text in texts)
