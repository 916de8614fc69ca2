"""Where a Python script tells its metrics, as far as its text shows: printed f-strings, a Trainer, loggers.

A guess for `ablab new --command`, which writes it into the study where it can be corrected. Nothing is run.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ablab.contract.command import usual_name

#: Words that make a printed number a metric.
_METRIC = re.compile(r"loss|acc|perplexity|ppl|f1|bleu|rouge|score|auc|error|reward|bits", re.IGNORECASE)
_STEP = re.compile(r"^(?:step|global_step|epoch|ep|it|iter|iteration|i|batch|n|t)$", re.IGNORECASE)
_WORD = re.compile(r"([A-Za-z][\w/ .-]*?)\s*[:=]?\s*$")


@dataclass(frozen=True, kw_only=True)
class Found:
    """Sources as the study writes them, and the metric to judge by; None where only running tells its name."""

    sources: tuple[str, ...]
    metric: str | None


def find_metrics(scripts: Iterable[Path]) -> Found | None:
    """Return what scripts tell about their metrics; None where nothing was found."""
    sources: dict[str, None] = {}
    names: list[str] = []
    for script in scripts:
        try:
            tree = ast.parse(script.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        for template, found in _printed(tree):
            sources[f"{{line: {json.dumps(template, ensure_ascii=False)}}}"] = None
            names += found
        for source, metric in _loggers(tree):
            sources[source] = None
            names += [metric] if metric else []
    return Found(sources=tuple(sources), metric=_judged(names)) if sources else None


def _judged(names: list[str]) -> str | None:
    """Return the metric that a study would judge by: of the test, of the validation, else the last one."""
    for prefix in ("test/", "val/"):
        chosen = [name for name in names if name.startswith(prefix)]
        if chosen:
            return next((name for name in chosen if name.endswith("/loss")), chosen[0])
    return names[-1] if names else None


def _printed(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Yield (template, metric names) of each print of an f-string that holds metrics."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) in ("print", "info", "write") and node.args:
            text = node.args[0]
            if isinstance(text, ast.JoinedStr):
                template, names = _template(text)
                if names:
                    yield template, names


def _template(text: ast.JoinedStr) -> tuple[str, list[str]]:
    """Return an f-string as a template of lines, and the metrics in it."""
    parts: list[str] = []
    names: list[str] = []
    stepped = False
    for value in text.values:
        if isinstance(value, ast.Constant):
            parts.append(re.sub(r"[{}]", "", str(value.value)).replace("\n", " "))
            continue
        before = _WORD.search(parts[-1]) if parts and isinstance(parts[-1], str) else None
        label = before[1].split()[-1] if before is not None else ""
        expression = ast.unparse(value.value) if isinstance(value, ast.FormattedValue) else ""
        called = label or expression
        if not stepped and (_STEP.match(label) or (not label and _STEP.match(expression))):
            stepped = True
            parts.append("{step}")
        elif _METRIC.search(called) or _METRIC.search(expression):
            name = _metric(label, expression, before[1] if before is not None else "")
            if name in names:
                parts.append("{_}")
                continue
            parts.append(f"{{{name}}}")
            names.append(name)
        else:
            parts.append("{_}")
    return "".join(parts).strip(), names


def _metric(label: str, expression: str, phrase: str) -> str:
    """Return the metric's name from the words before it (val loss), else from the expression."""
    words = [word for word in re.findall(r"[A-Za-z][\w/]*", phrase) if word]
    if len(words) > 1 and words[-2].lower() in ("val", "valid", "validation", "eval", "test", "train"):
        return usual_name(f"{words[-2].lower()}_{words[-1]}")
    if label and _METRIC.search(label):
        return usual_name(label)
    names = re.findall(r"[A-Za-z_]\w*", expression)
    return usual_name(next((name for name in names if _METRIC.search(name)), names[0]))


def _loggers(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Yield (source, metric) of what well-known libraries write."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = _called(node)
        if called in ("Trainer", "Seq2SeqTrainer", "SFTTrainer"):
            keywords = {keyword.arg for keyword in node.keywords}
            if "args" in keywords or called != "Trainer":
                # Its train_loss, at the end, is a mean over the run; `loss` is the one of a step.
                source = '{json: "**/trainer_state.json", records: log_history, names: {train_loss: train/mean_loss}}'
                yield source, "val/loss" if "eval_dataset" in keywords else "train/loss"
        elif called == "CSVLogger":
            yield '{csv: "**/metrics.csv"}', None
        elif called in ("SummaryWriter", "TensorBoardLogger"):
            yield '{tensorboard: "."}', None
        elif called == "log" and isinstance(node.func, ast.Attribute) and _root(node.func) == "ablab":
            yield "{logged: true}", None


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _root(node: ast.Attribute) -> str:
    return node.value.id if isinstance(node.value, ast.Name) else ""
