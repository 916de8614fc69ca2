"""Evaluate a language model on a whole split with sliding windows, and show what it says.

Every token of the split is a target once (`ablab.metrics.perplexity.windows`); bytes and words are those of the
original text, from the corpus's manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError, NotFiniteError, StopRequested
from ablab.contract.result import Distribution, Evaluation, Example, Outcome, Series, Table
from ablab.data.corpora import Counts, Prepared
from ablab.generation.greedy import continue_greedily
from ablab.metrics.perplexity import scores, windows
from ablab.models.gpt import GPT
from ablab.models.loss import IGNORE
from ablab.tasks.language_modeling.config import Evaluate
from ablab.tasks.language_modeling.windows import Stream

#: A metric of the user's: nats and token of every target, to values by name.
Metric = Callable[[np.ndarray, np.ndarray], Mapping[str, float]]
#: Bars of the histogram of token losses, and the nats the last one ends at (what exceeds it counts there).
_BARS, _MOST = 32, 16.0
#: Points of the loss by position.
_POINTS = 32


@dataclass(kw_only=True)
class Tally:
    """Sums over the targets of a split, in fp64: nats and targets by position in the window, and a histogram."""

    nats: np.ndarray
    targets: np.ndarray
    histogram: np.ndarray

    @classmethod
    def empty(cls, window: int) -> Tally:
        """Return zeros for a window."""
        return cls(nats=np.zeros(window), targets=np.zeros(window), histogram=np.zeros(_BARS, dtype=np.int64))

    def add(self, nats: Tensor, counts: Tensor) -> None:
        """Add nats (B, window) of targets; counts says which of them count."""
        self.nats += nats.double().sum(0).cpu().numpy()
        self.targets += counts.sum(0).cpu().numpy()
        scored = nats[counts].float().clamp(0, _MOST)
        self.histogram += torch.histc(scored, bins=_BARS, min=0, max=_MOST).long().cpu().numpy()


def evaluate(
    model: GPT,
    corpus: Prepared,
    parameters: Evaluate,
    context: Context,
    *,
    own: Mapping[str, Metric] | None = None,
) -> Outcome:
    """Return the scores of a split, its loss by position and by token, and a few continuations.

    `own` are metrics of the user's, by the name the study gives them.

    Raises:
        ConfigError: the window exceeds the model's context, or the stride the window.
        NotFiniteError: the model's loss is not a finite number.
        StopRequested: a stop was asked for.
    """
    window, stride = sizes(parameters, context=model.shape.context)
    counts = corpus.counts(parameters.split)
    stream = Stream(corpus.tokens(parameters.split), end_of_text=corpus.end_of_text)
    kept: list[np.ndarray] | None = [] if own else None
    tally = measure(model, stream, window=window, stride=stride, batch=parameters.batch, context=context, kept=kept)
    nats, targets = float(tally.nats.sum()), float(tally.targets.sum())
    if not np.isfinite(nats):
        raise NotFiniteError(f"{parameters.split}: the total loss is {nats}", split=parameters.split)
    values = scores(nats=nats, tokens=targets, size=counts.bytes, words=counts.words)
    if kept is not None:
        values |= own_scores(own or {}, np.concatenate(kept), stream)
    shown = Evaluation(
        name=f"{parameters.split} split",
        tables=(_table(values, counts, window=window, stride=stride),),
        series=(_by_position(tally),),
        distributions=(_by_token(tally),),
        examples=tuple(continuations(model, corpus, stream, parameters)),
    )
    facts = {"window": window, "stride": stride, "targets": int(targets), "bytes": counts.bytes, "words": counts.words}
    return Outcome(
        metrics={f"{parameters.split}/{name}": value for name, value in values.items()},
        facts={f"evaluation.{name}": value for name, value in facts.items()},
        evaluations=(shown,),
    )


def sizes(parameters: Evaluate, *, context: int) -> tuple[int, int]:
    """Return window and stride, with the model's context and the window where they are not given."""
    window = parameters.window or context
    stride = parameters.stride or window
    if window > context:
        raise ConfigError(f"evaluate.window {window} exceeds the model's context of {context} tokens")
    if stride > window:
        raise ConfigError(f"evaluate.stride {stride} exceeds the window of {window}: tokens between would be left out")
    return window, stride


def own_scores(own: Mapping[str, Metric], nats: np.ndarray, stream: Stream) -> dict[str, float]:
    """Return what metrics of the user's make of the nats of every token.

    Raises:
        ConfigError: one fails, or returns something other than numbers by name.
    """
    found: dict[str, float] = {}
    tokens = stream.tokens.read(0, len(stream)).astype(np.int64)
    for name, metric in own.items():
        try:
            values = metric(nats, tokens)
            found |= {str(key): float(value) for key, value in values.items()}
        except Exception as error:
            expected = "a mapping of names to numbers"
            raise ConfigError(
                f"the metric {name} failed: {type(error).__name__}: {error}; expected {expected}"
            ) from error
    return found


@torch.no_grad()
def measure(
    model: GPT,
    stream: Stream,
    *,
    window: int,
    stride: int,
    batch: int,
    context: Context,
    kept: list[np.ndarray] | None = None,
) -> Tally:
    """Sum the nats of every token of a stream; into `kept` go the nats themselves, fp32, in the order of the tokens."""
    device = next(model.parameters()).device
    spans = [(w.start, w.scored, w.stop) for w in windows(len(stream), window=window, stride=stride)]
    tally = Tally.empty(window)
    for begin in range(0, len(spans), batch):
        if context.stop_requested():
            raise StopRequested("stopped during evaluation")
        part = stream.batch(spans[begin : begin + batch], width=window)
        targets = part["targets"].to(device)
        nats, counts = model.nats(part["inputs"].to(device), targets), targets != IGNORE
        tally.add(nats, counts)
        if kept is not None:
            kept.append(nats[counts].float().cpu().numpy())
        context.progress(min(begin + batch, len(spans)), len(spans), unit="windows")
    return tally


def continuations(model: GPT, corpus: Prepared, stream: Stream, parameters: Evaluate) -> Iterator[Example]:
    """Yield greedy continuations of places spread over the split, beside what the text says."""
    prompt = max(model.shape.context // 2, 1)
    room = len(stream) - prompt - parameters.continuation
    if parameters.examples < 1 or room < 0:
        return
    starts = np.linspace(0, room, parameters.examples + 2, dtype=np.int64)[1:-1]
    device = next(model.parameters()).device
    prompts = torch.from_numpy(stream.tokens.gather(starts, prompt)).to(device)
    written = continue_greedily(
        model.logits, prompts, tokens=parameters.continuation, context=model.shape.context
    ).cpu()
    tokenizer = corpus.tokenizer()
    for start, given, output in zip(starts.tolist(), prompts.cpu(), written, strict=True):
        wanted = stream.tokens.read(start + prompt, start + prompt + parameters.continuation)
        agree = float((output.numpy() == wanted.astype(np.int64)).mean())
        yield Example(
            id=f"token {start}",
            input=tokenizer.decode(given.tolist()),
            output=tokenizer.decode(output.tolist()),
            target=tokenizer.decode(wanted.tolist()),
            scores={"tokens equal": agree},
        )


def _table(values: dict[str, float], counts: Counts, *, window: int, stride: int) -> Table:
    rows = [*values.items(), ("window", window), ("stride", stride)]
    rows += [("tokens", counts.tokens), ("words", counts.words), ("bytes", counts.bytes)]
    units = {"loss": "nats", "bits_per_byte": "bits", "window": "tokens", "stride": "tokens"}
    return Table(name="scores", columns=("score", "value"), rows=tuple(rows), units=units)


def _by_position(tally: Tally) -> Series:
    """Return the mean nats by position in the window, in at most `_POINTS` bins of equal width."""
    bins = np.array_split(np.arange(len(tally.nats)), min(_POINTS, len(tally.nats)))
    points = [
        (float(places.mean()), float(tally.nats[places].sum() / tally.targets[places].sum()))
        for places in bins
        if tally.targets[places].sum() > 0
    ]
    x, y = zip(*points, strict=True) if points else ((), ())
    return Series(name="loss by position", x=x, y=y, x_label="tokens seen before", y_label="nats")


def _by_token(tally: Tally) -> Distribution:
    edges = tuple(np.linspace(0, _MOST, _BARS + 1).tolist())
    return Distribution(name="loss by token", edges=edges, counts=tuple(tally.histogram.tolist()), label="nats")
