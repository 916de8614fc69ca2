"""The summariser: a checkpoint with its tokenizer, and tags in the vocabulary.

How its parts train is applied afterwards, by the loop and the evaluation alike: rows of tokens that were added after an
adapter would stay as they were drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError
from ablab.contract.order import Input
from ablab.data.dialogues import PreparedDialogues
from ablab.models.heads import plain_head
from ablab.models.hub import load_model, load_tokenizer
from ablab.models.loss import OwnRows, linear_cross_entropy
from ablab.models.source import set_source
from ablab.models.vocabulary import NewRows, grow_vocabulary
from ablab.tasks.summarization.families import FAMILIES, Family, dropout_entries, positions_of, translated
from ablab.tasks.summarization.problems import check_accelerator
from ablab.tasks.summarization.sections import Model
from ablab.tasks.summarization.tokens import add_tags, open_trained

#: Encoder-decoders whose logits are their head's product; T5 scales the states before the head.
_PRODUCT_HEADS = frozenset({"bart", "mbart", "t5", "mt5", "umt5"})


class Vocabulary:
    """A tokenizer with the tags of the data in it.

    Args:
        tokenizer: of transformers.
        pieces: (id, ids it was split into before) of each tag that was new.
    """

    def __init__(self, tokenizer: Any, tags: Sequence[str]) -> None:
        before = {tag: tokenizer(tag, add_special_tokens=False)["input_ids"] for tag in tags}
        new = add_tags(tokenizer, tags)
        self.tokenizer = tokenizer
        names = tokenizer.convert_ids_to_tokens(new)
        self.pieces: list[tuple[int, list[int]]] = [(i, before[name]) for i, name in zip(new, names, strict=True)]

    @property
    def new(self) -> list[int]:
        """Ids of the tokens that the checkpoint did not have."""
        return [token for token, _ in self.pieces]


def open_vocabulary(
    section: Model,
    prepared: PreparedDialogues,
    *,
    inputs: Iterable[Input],
    revisions: Mapping[str, str] | None,
    study_folder: str | Path | None,
) -> Vocabulary:
    """Return the tokenizer: trained on the data where that was asked for, else the checkpoint's own.

    Raises:
        ConfigError: a model from a configuration, and no tokenizer was trained.
    """
    if prepared.tokenizer is not None:
        return Vocabulary(open_trained(prepared.tokenizer), prepared.tags)
    if section.checkpoint.config is not None:
        raise ConfigError(
            "a model from a configuration has no tokenizer: train one, data.tokenizer: {name: unigram, vocabulary: N}"
        )
    tokenizer = load_tokenizer(section.checkpoint, inputs=inputs, revisions=revisions, study_folder=study_folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Vocabulary(tokenizer, prepared.tags)


def build_model(
    section: Model,
    vocabulary: Vocabulary,
    *,
    seed: int,
    load_backbone: Callable[[nn.Module], str] | None = None,
    inputs: Iterable[Input] = (),
    revisions: Mapping[str, str] | None = None,
    study_folder: str | Path | None = None,
) -> nn.Module:
    """Return the model on the CPU: loaded, its vocabulary grown, the rows that are new to it named.

    Args:
        section: what the study says.
        vocabulary: tokenizer with tags.
        seed: draws a model from a configuration.
        load_backbone: copies a pretraining's weights into the model and says where from.
        inputs, revisions, study_folder: where names lead.

    Raises:
        ConfigError: an accelerator that cannot be used, settings that do not fit the architecture.
    """
    check_accelerator(section)
    reference = section.checkpoint
    if reference.config is not None:
        reference = reference.model_copy(update={"config": translated(reference.config)})
    model: Any = load_model(
        reference,
        kind=section.kind,
        config=_entries(section, vocabulary.tokenizer),
        seed=seed,
        inputs=inputs,
        revisions=revisions,
        study_folder=study_folder,
    )
    _name_tokens(model, vocabulary.tokenizer, drawn=section.checkpoint.config is not None)
    grow_vocabulary(model, len(vocabulary.tokenizer), pieces=vocabulary.pieces)
    if load_backbone is not None:
        text = load_backbone(model)
        set_source(model, text)
    if section.new_tokens == "trained":
        # Beside adapters these rows of the frozen embedding train (`ablab.models.parts`).
        model.ablab_new_tokens = tuple(vocabulary.new)
    model.config.use_cache = False
    return model  # type: ignore[no-any-return]


def _entries(section: Model, tokenizer: Any) -> dict[str, Any]:
    """Return the configuration entries that the study or the tokenizer decides."""
    entries: dict[str, Any] = {}
    config = section.checkpoint.config
    if config is not None:
        if "vocab_size" not in config:
            entries["vocab_size"] = len(tokenizer)
        entries |= {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    if section.dropout is not None:
        known = None if config is None else str(config["model_type"])
        entries |= dict.fromkeys(dropout_entries(known), section.dropout)
    return entries


def _name_tokens(model: Any, tokenizer: Any, *, drawn: bool) -> None:
    """Tell the configuration which tokens begin, end and fill up, where the checkpoint's does not."""
    for place in (model.config, model.generation_config):
        if drawn or getattr(place, "pad_token_id", None) is None:
            place.pad_token_id = tokenizer.pad_token_id
        if drawn or getattr(place, "eos_token_id", None) is None:
            place.eos_token_id = tokenizer.eos_token_id
    if model.config.is_encoder_decoder:
        start = getattr(model.config, "decoder_start_token_id", None)
        if drawn:
            family = FAMILIES.get(model.config.model_type, Family(name=""))
            start = tokenizer.pad_token_id if family.relative else tokenizer.eos_token_id
            model.config.forced_bos_token_id = model.generation_config.forced_bos_token_id = None
            model.config.forced_eos_token_id = model.generation_config.forced_eos_token_id = None
        if start is None:
            start = getattr(model.generation_config, "decoder_start_token_id", None)
        if start is None:
            raise ConfigError(f"the configuration of {section_name(model)} names no decoder_start_token_id")
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = start


def section_name(model: Any) -> str:
    """Return what a model is called, for messages."""
    return str(getattr(model, "name_or_path", "") or type(model).__name__)


class PickedHead:
    """Lets the output head see only the places whose logits are wanted: padding of targets costs nothing.

    With a vocabulary of 250,000, logits of padding are most of a step's memory.
    """

    def __init__(self) -> None:
        self.mask: Tensor | None = None
        self.keeps = False
        self.states: Tensor | None = None

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Keep the hidden states (N, C) of the mask (B, T) out of (B, T, C), for the head or instead of it."""
        if self.mask is None:
            return None
        states = given[0][self.mask]
        if self.keeps:
            self.states, states = states, states[:0]
        return (states, *given[1:])

    @classmethod
    def on(cls, model: nn.Module) -> PickedHead:
        """Return the hook of a model's head, put there on the first call."""
        generating: Any = model
        if not hasattr(model, "ablab_picked_head"):
            hook = cls()
            generating.get_output_embeddings().register_forward_pre_hook(hook)
            generating.ablab_picked_head = hook
        return generating.ablab_picked_head  # type: ignore[no-any-return]


def target_logits(model: nn.Module, batch: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """Return the logits (N, V) of the places in `mask`: (B, T) of the decoder, or of the one sequence where causal.

    Args:
        model: of `build_model`.
        batch: input_ids and attention_mask, and decoder_input_ids of an encoder-decoder.
        mask: places whose next token is a target.
    """
    hook = PickedHead.on(model)
    hook.mask = mask
    try:
        logits: Tensor = model(**batch, use_cache=False).logits
    finally:
        hook.mask = None
    return logits


def target_states(model: nn.Module, batch: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    """Return the states (N, C) that the head is given at the places in `mask`; the head itself computes nothing."""
    hook = PickedHead.on(model)
    hook.mask, hook.keeps = mask, True
    try:
        model(**batch, use_cache=False)
        states = hook.states
    finally:
        hook.mask, hook.keeps, hook.states = None, False, None
    assert states is not None
    return states


def product_head(model: nn.Module) -> nn.Linear | None:
    """Return the output head where logits are its product and nothing else; None where only the model can make them.

    BART adds a bias to its logits; checkpoints keep it at zero, and one that does not is left to the model.
    """
    generating: Any = model
    if generating.config.model_type not in _PRODUCT_HEADS:
        found = plain_head(model)
        return None if found is None or found.bias is not None else found
    if not hasattr(model, "ablab_biased"):
        # Asked once: an answer from a GPU is waited for.
        bias = getattr(model, "final_logits_bias", None)
        generating.ablab_biased = bias is not None and bool(bias.any())
    head = generating.get_output_embeddings()
    return head if type(head) is nn.Linear and head.bias is None and not generating.ablab_biased else None


def target_loss(head: nn.Linear, states: Tensor, targets: Tensor, *, new: nn.Module | None) -> Tensor:
    """Return the nats of targets (N,) after states (N, C) as a sum, without ever holding all logits.

    Args:
        head: of `product_head`.
        states: of `target_states`.
        targets: ids of tokens.
        new: rows of new tokens that train while the head is frozen.
    """
    own = None
    if isinstance(new, NewRows):
        own = OwnRows(tokens=new.tokens, rows=new.embedding if new.head is None else new.head)
    return linear_cross_entropy(states, head.weight, targets, own=own)


def shifted_right(model: nn.Module, labels: Tensor, *, ignore: int) -> Tensor:
    """Return what the decoder sees for labels (B, T): the start token and all labels but the last."""
    config: Any = model.config
    known = labels.masked_fill(labels == ignore, config.pad_token_id)
    if config.model_type == "mbart":
        from transformers.models.mbart.modeling_mbart import shift_tokens_right

        # mBART begins with the language, which stands at the end of its labels.
        shifted: Tensor = shift_tokens_right(known, config.pad_token_id)
        return shifted
    start = torch.full_like(known[:, :1], config.decoder_start_token_id)
    return torch.cat([start, known[:, :-1]], dim=1)


def check_lengths(section: Model, model: nn.Module, *, source: int, target: int) -> None:
    """Refuse lengths beyond the positions a model has.

    Raises:
        ConfigError: which length, and how many positions there are.
    """
    limit = position_limit(section, model)
    for name, length in (("encoder_length", source), ("decoder_length", target)):
        if limit is not None and length > limit:
            raise ConfigError(
                f"input.{name} {length} exceeds the {limit} positions of {section.checkpoint.label}; set it to {limit} "
                "or less, or take a model with relative positions (T5, mT5)"
            )


def position_limit(section: Model, model: nn.Module) -> int | None:
    """Return the positions of a model that is built; None for relative ones."""
    config: Any = model.config
    family = FAMILIES.get(config.model_type)
    if family is not None and family.relative:
        return None
    found = getattr(config, "max_position_embeddings", None)
    return int(found) if found is not None else positions_of(section.checkpoint)
