"""Batched deterministic generation with any model of transformers, equal to generating one row at a time.

transformers' `generate` does the decoding itself (cached, greedy or beams). This file decides what goes into a batch:
rows of similar length, as many as a budget of tokens allows, padded on the side the architecture needs; it gives the
rows back in the order they came, and halves a batch that does not fit into memory. Text and tokenizers are the
caller's.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ablab.contract.decoding import Decoding
from ablab.contract.failure import ConfigError, OutOfMemoryError
from ablab.contract.memory import is_out_of_memory
from ablab.generation.cache import beam_cache

#: Tokens a batch may hold where the caller names no budget: padded inputs, and beams times the longest output.
BATCH_TOKENS = {"cpu": 16_384, "cuda": 65_536}

#: Tensors that are of their row's length whatever their shape is.
_LENGTHWISE = frozenset({"input_ids", "attention_mask", "inputs_embeds", "token_type_ids", "position_ids"})

Row = Mapping[str, Tensor]


def generate(
    model: nn.Module,
    inputs: Sequence[Row],
    *,
    decoding: Decoding,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    pad_token_id: int | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    decoder_start_token_id: int | None = None,
    device: torch.device | str | None = None,
    between: Callable[[int, int], None] | None = None,
    **options: Any,
) -> list[list[int]]:
    """Return the generated token ids of each row, in the order of the rows; without prompt, start and end tokens.

    Args:
        model: with transformers' `generate` and `config`; an adapter around one will do. Put into evaluation mode
            for the while.
        inputs: one mapping a row, without padding: `input_ids` (T,) or `inputs_embeds` (T, C), and whatever else
            `generate` takes, padded where its first dimension is T and stacked where all rows have one shape.
        decoding: beams, penalties, lengths. Blocked n-grams are those of the output: a prompt may be quoted.
        batch_tokens: most tokens of a batch: rows x (longest input + beams x max_new_tokens). A row that exceeds it
            alone is generated alone.
        batch_size: most rows of a batch; neither given takes a budget by the device.
        pad_token_id, eos_token_id, decoder_start_token_id: None takes the model's.
        device: None is where the model is.
        between: called with (rows done, rows in all) before the first batch and after each; may raise to stop.
        **options: further arguments of `generate`.

    Raises:
        ConfigError: rows lack input, are empty, or no padding token is known.
        OutOfMemoryError: even one row does not fit.
    """
    where = torch.device(device) if device is not None else next(model.parameters()).device
    if batch_tokens is None and batch_size is None:
        batch_tokens = BATCH_TOKENS.get(where.type, BATCH_TOKENS["cuda"])
    batcher = _Batcher(
        [_length(row, number) for number, row in enumerate(inputs)],
        extra=decoding.beams * decoding.max_new_tokens,
        tokens=batch_tokens,
        rows=batch_size,
    )
    run = _Run(
        model, decoding, pad=pad_token_id, eos=eos_token_id, start=decoder_start_token_id, device=where, options=options
    )
    outputs: list[list[int]] = [[] for _ in inputs]
    done = 0
    training = model.training
    model.eval()
    try:
        if between is not None:
            between(done, len(inputs))
        for ids in batcher:
            made = _attempt(run, [inputs[i] for i in ids])
            if made is None:
                batcher.refuse(ids)
                continue
            for i, tokens in zip(ids, made, strict=True):
                outputs[i] = tokens
            done += len(ids)
            if between is not None:
                between(done, len(inputs))
    finally:
        model.train(training)
    return outputs


def _attempt(run: _Run, rows: Sequence[Row]) -> list[list[int]] | None:
    """Return the outputs of a batch, or None when memory ran out and fewer rows may fit."""
    try:
        return run(rows)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if len(rows) == 1:
            raise OutOfMemoryError(
                f"memory ran out while generating a single row of {_length(rows[0], 0)} tokens; shorten the input, "
                "use fewer beams, or fewer new tokens",
                evaluation_batch=1,
            ) from error
    # Outside the handler, so that the failed batch's tensors are no longer held by the traceback.
    gc.collect()
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


class _Batcher:
    """Row numbers of one batch after the other: the longest rows first, so that what does not fit shows at once."""

    def __init__(self, lengths: Sequence[int], *, extra: int, tokens: int | None, rows: int | None) -> None:
        self._lengths = lengths
        self._extra = extra
        self._tokens = tokens
        self._rows = rows
        self._left = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))

    def __iter__(self) -> Iterator[list[int]]:
        while self._left:
            cost = self._lengths[self._left[0]] + self._extra
            most = len(self._left) if self._rows is None else self._rows
            if self._tokens is not None:
                most = min(most, max(self._tokens // cost, 1))
            ids, self._left = self._left[:most], self._left[most:]
            yield ids

    def refuse(self, ids: Sequence[int]) -> None:
        """Take a batch back that did not fit; from now on half of its tokens is the budget."""
        self._left = [*ids, *self._left]
        self._tokens = max(len(ids) // 2, 1) * (self._lengths[ids[0]] + self._extra)


class _Run:
    """`generate` of one model with one decoding, on lists of rows."""

    def __init__(
        self,
        model: nn.Module,
        decoding: Decoding,
        *,
        pad: int | None,
        eos: int | Sequence[int] | None,
        start: int | None,
        device: torch.device,
        options: Mapping[str, Any],
    ) -> None:
        generating: Any = model
        own = getattr(generating, "generation_config", None)
        self.device = device
        self._model = model
        self._generate = generating.generate
        self._options = {name: value for name, value in options.items() if name != "logits_processor"}
        self._own_processors = list(options.get("logits_processor", ()))
        self._encoder_decoder = bool(generating.config.is_encoder_decoder)
        self._decoding = decoding
        ends = _first(eos, getattr(own, "eos_token_id", None), getattr(generating.config, "eos_token_id", None))
        self._ends = {ends} if isinstance(ends, int) else set(ends or ())
        self._pad = _first(pad, getattr(own, "pad_token_id", None), getattr(generating.config, "pad_token_id", None))
        if self._pad is None:
            self._pad = min(self._ends, default=None)
        if self._pad is None:
            raise ConfigError(
                "neither the caller nor the model's configuration names a padding token: set pad_token_id"
            )
        self._config = _configuration(decoding, pad=self._pad, ends=self._ends, start=start, own=own)

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row]) -> list[list[int]]:
        batch = collate(rows, pad_token_id=self._pad, left=not self._encoder_decoder)
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        width = batch["attention_mask"].size(1)
        prompt = 0 if self._encoder_decoder or "inputs_embeds" in batch else width
        processors = [*self._own_processors, *self._processors(prompt)]
        options = self._options
        if self._decoding.beams > 1 and (cache := beam_cache(self._model, prompt=width)) is not None:
            options = {"past_key_values": cache, **options}
        made = self._generate(**batch, generation_config=self._config, logits_processor=processors, **options)
        # An encoder-decoder's output begins with the start token.
        skipped = 1 if self._encoder_decoder else prompt
        return [self._cut(row) for row in made[:, skipped:].tolist()]

    def _processors(self, prompt: int) -> list[Callable[[Tensor, Tensor], Tensor]]:
        """Return what looks at the output so far, without the prompt."""
        from transformers.generation.logits_process import (
            NoRepeatNGramLogitsProcessor,
            RepetitionPenaltyLogitsProcessor,
        )

        made: list[Any] = []
        if self._decoding.repetition_penalty != 1.0:
            made.append(RepetitionPenaltyLogitsProcessor(self._decoding.repetition_penalty))
        if self._decoding.no_repeat_ngram:
            made.append(NoRepeatNGramLogitsProcessor(self._decoding.no_repeat_ngram))
        return [_OutputOnly(processor, prompt) for processor in made]

    def _cut(self, tokens: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), len(tokens))
        return tokens[:end]


class _OutputOnly:
    """A logits processor that is shown the generated tokens only, not the prompt."""

    def __init__(self, processor: Callable[[Tensor, Tensor], Tensor], prompt: int) -> None:
        self._processor = processor
        self._prompt = prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self._processor(input_ids[:, self._prompt :], scores)


def collate(rows: Sequence[Row], *, pad_token_id: int, left: bool) -> dict[str, Tensor]:
    """Return rows as one batch, padded to the longest, with its attention mask.

    Tensors of one shape are stacked; those whose first dimension is the row's length are padded, `input_ids` with the
    padding token and all others with zero.

    Raises:
        ConfigError: rows differ in their names, or a tensor that is not padded differs in shape.
    """
    lengths = [_length(row, number) for number, row in enumerate(rows)]
    names = list(rows[0])
    if any(set(row) != set(names) for row in rows):
        raise ConfigError(f"rows of one batch hold different tensors: {sorted({name for row in rows for name in row})}")
    width = max(lengths)
    batch = {}
    for name in names:
        tensors = [row[name] for row in rows]
        if all(t.shape == tensors[0].shape for t in tensors) and (name not in _LENGTHWISE or min(lengths) == width):
            batch[name] = torch.stack(tensors)
        elif all(t.dim() and t.size(0) == n for t, n in zip(tensors, lengths, strict=True)):
            batch[name] = _padded(tensors, width, value=pad_token_id if name == "input_ids" else 0, left=left)
        else:
            raise ConfigError(f"{name} of a row has neither the row's length nor the shape of the others")
    if "attention_mask" not in batch:
        ones = [torch.ones(n, dtype=torch.int64) for n in lengths]
        batch["attention_mask"] = _padded(ones, width, value=0, left=left)
    return batch


def _padded(tensors: Sequence[Tensor], width: int, *, value: int, left: bool) -> Tensor:
    first = tensors[0]
    whole = first.new_full((len(tensors), width, *first.shape[1:]), value)
    for row, tensor in zip(whole, tensors, strict=True):
        if left:
            row[width - tensor.size(0) :] = tensor
        else:
            row[: tensor.size(0)] = tensor
    return whole


def _length(row: Row, number: int) -> int:
    given = row.get("inputs_embeds", row.get("input_ids"))
    if given is None:
        raise ConfigError(f"row {number} has neither input_ids nor inputs_embeds; it has {', '.join(row) or 'nothing'}")
    if given.size(0) < 1:
        raise ConfigError(f"row {number} is empty: a model needs at least one token")
    return given.size(0)


def _configuration(decoding: Decoding, *, pad: int, ends: set[int], start: int | None, own: Any) -> Any:
    """Return the GenerationConfig: ours where it decides the search, the model's own for its special tokens."""
    import transformers

    make: Any = transformers.GenerationConfig
    return make(
        do_sample=False,
        use_cache=True,
        num_beams=decoding.beams,
        length_penalty=decoding.length_penalty,
        early_stopping=decoding.early_stopping,
        max_new_tokens=decoding.max_new_tokens,
        max_length=None,
        min_new_tokens=decoding.min_length,
        # Ours look at the output only; the model's files may ask for more.
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        repetition_penalty=1.0,
        num_return_sequences=1,
        pad_token_id=pad,
        eos_token_id=sorted(ends) or None,
        decoder_start_token_id=_first(start, getattr(own, "decoder_start_token_id", None)),
    )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
