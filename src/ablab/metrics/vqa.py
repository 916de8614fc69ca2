"""VQA accuracy (Antol et al. 2015) with the answer normalisation of the official evaluation.

An answer is right in the degree that annotators gave it: the mean over the leave-one-out sets of annotators of
min(1, matches / 3). With ten annotators 1, 2, 3 and 4 matches are worth .3, .6, .9 and 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_WORDS)}
_ARTICLES = frozenset({"a", "an", "the"})
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")

#: The official table of contractions as "wrong=right", its own mistakes included.
_CONTRACTIONS: dict[str, str] = dict(
    pair.split("=")
    for pair in [
        "aint=ain't",
        "arent=aren't",
        "cant=can't",
        "couldve=could've",
        "couldnt=couldn't",
        "couldn'tve=couldn't've",
        "couldnt've=couldn't've",
        "didnt=didn't",
        "doesnt=doesn't",
        "dont=don't",
        "hadnt=hadn't",
        "hadnt've=hadn't've",
        "hadn'tve=hadn't've",
        "hasnt=hasn't",
        "havent=haven't",
        "hed=he'd",
        "hed've=he'd've",
        "he'dve=he'd've",
        "hes=he's",
        "howd=how'd",
        "howll=how'll",
        "hows=how's",
        "Id've=I'd've",
        "I'dve=I'd've",
        "Im=I'm",
        "Ive=I've",
        "isnt=isn't",
        "itd=it'd",
        "itd've=it'd've",
        "it'dve=it'd've",
        "itll=it'll",
        "let's=let's",
        "maam=ma'am",
        "mightnt=mightn't",
        "mightnt've=mightn't've",
        "mightn'tve=mightn't've",
        "mightve=might've",
        "mustnt=mustn't",
        "mustve=must've",
        "neednt=needn't",
        "notve=not've",
        "oclock=o'clock",
        "oughtnt=oughtn't",
        "ow's'at='ow's'at",
        "'ows'at='ow's'at",
        "'ow'sat='ow's'at",
        "shant=shan't",
        "shed've=she'd've",
        "she'dve=she'd've",
        "she's=she's",
        "shouldve=should've",
        "shouldnt=shouldn't",
        "shouldnt've=shouldn't've",
        "shouldn'tve=shouldn't've",
        "somebody'd=somebodyd",
        "somebodyd've=somebody'd've",
        "somebody'dve=somebody'd've",
        "somebodyll=somebody'll",
        "somebodys=somebody's",
        "someoned=someone'd",
        "someoned've=someone'd've",
        "someone'dve=someone'd've",
        "someonell=someone'll",
        "someones=someone's",
        "somethingd=something'd",
        "somethingd've=something'd've",
        "something'dve=something'd've",
        "somethingll=something'll",
        "thats=that's",
        "thered=there'd",
        "thered've=there'd've",
        "there'dve=there'd've",
        "therere=there're",
        "theres=there's",
        "theyd=they'd",
        "theyd've=they'd've",
        "they'dve=they'd've",
        "theyll=they'll",
        "theyre=they're",
        "theyve=they've",
        "twas='twas",
        "wasnt=wasn't",
        "wed've=we'd've",
        "we'dve=we'd've",
        "weve=we've",
        "werent=weren't",
        "whatll=what'll",
        "whatre=what're",
        "whats=what's",
        "whatve=what've",
        "whens=when's",
        "whered=where'd",
        "wheres=where's",
        "whereve=where've",
        "whod=who'd",
        "whod've=who'd've",
        "who'dve=who'd've",
        "wholl=who'll",
        "whos=who's",
        "whove=who've",
        "whyll=why'll",
        "whyre=why're",
        "whys=why's",
        "wont=won't",
        "wouldve=would've",
        "wouldnt=wouldn't",
        "wouldnt've=wouldn't've",
        "wouldn'tve=wouldn't've",
        "yall=y'all",
        "yall'll=y'all'll",
        "y'allll=y'all'll",
        "yall'd've=y'all'd've",
        "y'alld've=y'all'd've",
        "y'all'dve=y'all'd've",
        "youd=you'd",
        "youd've=you'd've",
        "you'dve=you'd've",
        "youll=you'll",
        "youre=you're",
        "youve=you've",
    ]
)


def normalise(text: str) -> str:
    """Return an answer as VQAv2's evaluation compares it: punctuation, number words, articles, contractions, case.

    A punctuation mark is taken out where it touches a space or where the text holds a number with a comma, and becomes
    a space otherwise; periods go unless a digit follows.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    taken = text
    in_number = _COMMA_IN_NUMBER.search(text) is not None
    for mark in _PUNCTUATION:
        alone = in_number or f"{mark} " in text or f" {mark}" in text
        taken = taken.replace(mark, "" if alone else " ")
    words = [_NUMBERS.get(word, word) for word in _PERIOD.sub("", taken).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def normalise_words(text: str) -> str:
    """Return an answer as TextVQA's and VizWiz's evaluation compares it: as `normalise`, after lower case, without
    commas and question marks, and with a possessive 's apart."""
    return normalise(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip())


def leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    """Return the accuracy, 0 to 1, of a normalised prediction against normalised answers of annotators.

    Raises:
        ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("VQA accuracy needs the answers of annotators")
    matches = sum(answer == prediction for answer in answers)
    total = sum(min(1.0, (matches - (answer == prediction)) / 3) for answer in answers)
    return total / len(answers)


def vqa_accuracy(prediction: str, answers: Sequence[str], *, words: bool = False) -> float:
    """Return the VQA accuracy, 0 to 1.

    Args:
        prediction: what the model said.
        answers: what annotators said, usually ten.
        words: normalise as TextVQA and VizWiz do (`normalise_words`) instead of as VQAv2 does.
    """
    clean = normalise_words if words else normalise
    return leave_one_out(clean(prediction), [clean(answer) for answer in answers])
