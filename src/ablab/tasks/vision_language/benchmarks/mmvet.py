"""MM-Vet (Yu et al. 2023): free answers, judged for correctness from 0 to 1 in steps of .1 with the published prompt.

Reads mm-vet.json (items by id: imagename, question, answer, capability), or the hub. A judgement that fails is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from ablab.tasks.vision_language.benchmarks.protocol import (
    Benchmark,
    Files,
    Judge,
    Marked,
    Marks,
    Question,
    mean_score,
)
from ablab.tasks.vision_language.benchmarks.reading import Gallery, rows

_MEME = (
    "Can you explain this meme? | This meme is poking fun at the fact that the names of the countries Iceland and "
    "Greenland are misleading. Despite its name, Iceland is known for its beautiful green landscapes, while Greenland "
    "is mostly covered in ice and snow. The meme is saying that the person has trust issues because the names of these "
    "countries do not accurately represent their landscapes. | "
)

#: The prompt of MM-Vet's own evaluator.
PROMPT = f"""Compare the ground truth and prediction from AI models, to give a correctness score for the prediction. \
<AND> in the ground truth means it is totally right only when all elements in the ground truth are present in the \
prediction, and <OR> means it is totally right when any one element in the ground truth is present in the prediction. \
The correctness score is 0.0 (totally wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, or 1.0 (totally right). \
Just complete the last space of the correctness score.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
What is x in the equation? | -1 <AND> -5 | x = 3 | 0.0
What is x in the equation? | -1 <AND> -5 | x = -1 | 0.5
What is x in the equation? | -1 <AND> -5 | x = -5 | 0.5
What is x in the equation? | -1 <AND> -5 | x = -5 or 5 | 0.5
What is x in the equation? | -1 <AND> -5 | x = -1 or x = -5 | 1.0
{_MEME}The meme talks about Iceland and Greenland. It's pointing out that despite their names, Iceland is not very icy \
and Greenland isn't very green. | 0.4
{_MEME}The meme is using humor to point out the misleading nature of Iceland's and Greenland's names. Iceland, despite \
its name, has lush green landscapes while Greenland is mostly covered in ice and snow. The text 'This is why I have \
trust issues' is a playful way to suggest that these contradictions can lead to distrust or confusion. The humor in \
this meme is derived from the unexpected contrast between the names of the countries and their actual physical \
characteristics. | 1.0
"""

_SCORE = re.compile(r"\A\s*(?:correctness(?: score)?\s*[:|]?\s*)?([01](?:\.\d+)?)(?![\d.]*\d)", re.IGNORECASE)


def read(files: Files) -> Iterator[Question]:
    """Yield the questions; `extra` has the capabilities each needs."""
    gallery = Gallery(files)
    for record in rows(files):
        capability = record.get("capability") or ()
        needs = capability.split(",") if isinstance(capability, str) else capability
        name = record.get("imagename")
        text = record.text("question")
        yield Question(
            id=record.key or record.text("question_id"),
            prompt=text,
            question=text,
            images=gallery.named(str(name)) if name else gallery.of(record, "image"),
            answers=(record.text("answer"),),
            extra={"capabilities": tuple(sorted(str(one).strip() for one in needs))},
        )


def judge(question: Question, text: str, judging: Judge) -> Marks | None:
    """Have the answer judged; None where no judgement could be had. An empty answer is wrong without asking."""
    if not text.strip():
        return {"score": 0.0}
    target = question.answers[0].replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    asked = f"{PROMPT}{question.question} | {' '.join(target.split())} | {text} |"
    score = judging.ask([{"role": "user", "content": asked}], read=read_score)
    return None if score is None else {"score": score}


def read_score(said: str) -> float | None:
    """Return the score a judgement begins with, 0 to 1; None where it begins with none."""
    found = _SCORE.match(said)
    score = float(found[1]) if found else -1.0
    return score if 0 <= score <= 1 else None


def combine(marked: Sequence[Marked]) -> dict[str, float]:
    """Return 100 x the mean score, over all and by capability; questions without a judgement are left out."""
    groups: dict[str, list[Marked]] = {"": list(marked)}
    for one in marked:
        for capability in one.question.extra["capabilities"]:
            groups.setdefault(capability, []).append(one)
    found = {name: mean_score(part) for name, part in groups.items()}
    return {name: 100 * value for name, value in found.items() if value is not None}


def submission(marked: Sequence[Marked]) -> tuple[str, str]:
    """Return the file of MM-Vet's own evaluator: answers by id."""
    return "mmvet_results.json", json.dumps({one.question.id: one.text for one in marked}, ensure_ascii=False)


MMVET = Benchmark(title="MMVet", read=read, judge=judge, combine=combine, submission=submission)
