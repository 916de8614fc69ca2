"""Parameters of training that every task shares; the loop in `ablab.training` reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ablab.contract.base import Strict, setting


class ParameterGroup(Strict):
    """Rule for the parameters whose names match `pattern` (fnmatch on dotted names); the first match wins.

    A pattern that matches nothing is an error.
    """

    pattern: str = setting(..., "fnmatch pattern on parameter names, for example blocks.*.attention.query.*")
    learning_rate: float | None = setting(None, "Multiplier of the base learning rate.", ge=0)
    weight_decay: float | None = setting(None, "Weight decay instead of the optimiser's.", ge=0)
    frozen: bool = setting(False, "Do not train these parameters.")


class Trainability(Strict):
    """How one part of a model trains: wholly, not at all, from a layer on, or through low-rank adapters."""

    mode: Literal["full", "frozen", "unlocked", "lora", "qlora"] = setting(
        "full",
        "full: every parameter; frozen: none; unlocked: layers from_layer and above, embeddings and norms around the "
        "layers stay; lora: adapters beside frozen matrices; qlora: adapters beside matrices in 4 bits.",
    )
    from_layer: int | None = setting(
        None, "First layer that trains, from 0 and inclusive; with lora, first layer that gets adapters.", ge=0
    )
    learning_rate: float | None = setting(None, "Peak rate of this part; null takes the optimiser's.", gt=0)
    rank: int = setting(16, "Rank of the adapters.", ge=1)
    alpha: float | None = setting(None, "Scale of the adapters is alpha / rank; null is twice the rank.", gt=0)
    dropout: float = setting(0.0, "Dropout before the adapters.", ge=0, lt=1)
    targets: tuple[str, ...] | None = setting(
        None,
        "Matrices that get adapters: names as the architecture has them (q_proj, wi_0), or the words attention and "
        "feedforward; null is every matrix of the layers. A name that is not there is an error.",
    )

    @model_validator(mode="after")
    def _options_fit(self) -> Trainability:
        if self.mode == "unlocked" and self.from_layer is None:
            raise ValueError("unlocked needs from_layer, the first layer that trains")
        if self.mode in {"full", "frozen"} and self.from_layer is not None:
            raise ValueError(f"from_layer belongs to unlocked, lora and qlora; mode is {self.mode}")
        if self.mode == "frozen" and self.learning_rate is not None:
            raise ValueError("a frozen part has no learning_rate")
        if not self.adapts and (self.alpha is not None or self.targets is not None or self.dropout):
            raise ValueError(f"alpha, dropout and targets belong to lora and qlora; mode is {self.mode}")
        return self

    @property
    def adapts(self) -> bool:
        """Whether it trains through adapters."""
        return self.mode in {"lora", "qlora"}

    @property
    def scale(self) -> float:
        """Alpha of the adapters."""
        return 2.0 * self.rank if self.alpha is None else self.alpha


class Optimizer(Strict):
    """The optimiser and its groups."""

    name: Literal["adamw", "sgd"] = setting("adamw", "Algorithm.")
    learning_rate: float = setting(3e-4, "Peak learning rate.", gt=0)
    betas: tuple[float, float] = setting((0.9, 0.999), "Adam's running-average coefficients.")
    epsilon: float = setting(1e-8, "Adam's epsilon.", gt=0)
    momentum: float = setting(0.0, "SGD momentum.", ge=0)
    weight_decay: float = setting(0.01, "Decoupled weight decay.", ge=0)
    decay: Literal["matrices", "all"] = setting(
        "matrices", "What decays: tensors of two or more dimensions, or every parameter."
    )
    groups: tuple[ParameterGroup, ...] = setting((), "Rules by parameter-name pattern; the first match wins.")


class Schedule(Strict):
    """Learning rate over the steps of a run."""

    name: Literal["constant", "linear", "cosine", "cosine-restarts", "warmup-stable-decay"] = "cosine"
    warmup: int | None = setting(None, "Steps of linear warm-up.", ge=0)
    warmup_ratio: float | None = setting(None, "Warm-up as a share of all steps.", ge=0, le=1)
    final: float = setting(0.0, "Final rate as a share of the peak.", ge=0, le=1)
    cycles: int = setting(1, "Cycles of cosine-restarts.", ge=1)
    decay_ratio: float = setting(0.2, "Share of all steps that decay, for warmup-stable-decay.", gt=0, le=1)
    steps: int | None = setting(
        None,
        "Steps the schedule is made for; null is the run's own, whatever it counts in. Another total is a finding.",
        ge=1,
    )

    @model_validator(mode="after")
    def _one_warmup(self) -> Schedule:
        if self.warmup is not None and self.warmup_ratio is not None:
            raise ValueError("give warmup (steps) or warmup_ratio (share of all steps), not both")
        return self


class Validation(Strict):
    """When and on how much of the validation split a run is validated."""

    every: int | None = setting(None, "Steps between validations; None validates at the end only.", ge=1)
    batches: int | None = setting(None, "Validate on the first N batches; None takes the whole split.", ge=1)
    batch: int | None = setting(
        None, "Samples of a validation batch; None takes the training micro-batch.", ge=1, keyed=False
    )


class EarlyStopping(Strict):
    """Stop when the metric has not improved for a number of validations."""

    metric: str = setting("val/loss", "Metric of the validation.")
    patience: int = setting(5, "Validations without improvement.", ge=1)
    minimum: float = setting(0.0, "Improvement that counts.", ge=0)


class Checkpoints(Strict):
    """Which checkpoints a run writes and keeps; never part of the key."""

    every: int | None = setting(
        None, "Steps between checkpoints; None lets the loop choose by time.", ge=1, keyed=False
    )
    seconds: float = setting(60.0, "Seconds between checkpoints where `every` is not given.", gt=0, keyed=False)
    best: int = setting(1, "Keep the best N by `metric`; 0 keeps none.", ge=0, keyed=False)
    metric: str = setting("val/loss", "Metric that decides what is best.")
    mode: Literal["min", "max"] = setting("min", "Whether a lower or a higher value is better.")
    keep_every: int | None = setting(None, "Keep a checkpoint every N steps for good.", ge=1, keyed=False)


class Train(Strict):
    """Parameters of a train stage."""

    steps: int | None = setting(None, "Optimiser steps.", ge=1)
    epochs: float | None = setting(None, "Passes over the training split, instead of steps.", gt=0)
    batch: int = setting(8, "Effective batch: samples a step over all devices and accumulation.", ge=1)
    micro_batch: int | None = setting(None, "Samples a device takes at once; None takes what fits.", ge=1, keyed=False)
    optimizer: Optimizer = setting(default_factory=Optimizer, description="The optimiser.")
    parts: dict[str, Trainability] = setting(
        default_factory=dict,
        description="How each part of the model trains, by name (llm, tower, connector; all is the whole model); parts "
        "not named train wholly.",
    )
    schedule: Schedule = setting(default_factory=Schedule, description="Learning-rate schedule.")
    clip: float | None = setting(1.0, "Global gradient-norm clip; null clips nothing.", gt=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting("auto", "auto takes what the device does well.")
    compile: bool = setting(False, "torch.compile the model.", keyed=False)
    gradient_checkpointing: bool = setting(False, "Recompute activations in the backward pass.", keyed=False)
    validation: Validation = setting(default_factory=Validation, description="Validation schedule.")
    early_stopping: EarlyStopping | None = setting(None, "Early stopping.")
    checkpoints: Checkpoints = setting(default_factory=Checkpoints, description="Checkpoint policy.")
    log_every: int = setting(10, "Steps between logged lines.", ge=1, keyed=False)

    @model_validator(mode="after")
    def _length(self) -> Train:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        return self
