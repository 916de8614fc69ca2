"""The order: the JSON that a worker gets, holding all it needs to do one run."""

from __future__ import annotations

from typing import Any, Literal

from ablab.contract.base import Strict, setting

FORMAT = 1


class Input(Strict):
    """A finished run that this run reads."""

    reference: str = setting(..., "As the study wrote it: [experiment.]stage[@last|@best].")
    stage: str
    kind: str
    key: str
    path: str = setting(..., "Run folder of the input, absolute.")
    checkpoint: Literal["last", "best"] = "last"


class Numerics(Strict):
    """What may change bits but not the experiment; kept when a run resumes.

    Recorded with the run; a finding when the runs of a comparison differ.
    """

    threads: int = setting(1, "Intra-op threads of each process.", ge=1)
    device: Literal["cpu", "cuda"] = "cpu"
    device_name: str = setting("", "Name of the processor or GPU.")
    precision: Literal["fp32", "bf16", "fp16"] | None = setting(None, "What `auto` became on this device.")
    compile: bool = False
    attention: str = setting("auto", "Attention back end.")
    world_size: int = setting(1, "Processes of the run.", ge=1)
    versions: dict[str, str] = setting(default_factory=dict, description="torch, transformers, ... of the worker.")


class Resources(Strict):
    """Where and how this attempt runs."""

    devices: tuple[int, ...] = setting((), "GPU indices leased to the run; empty on CPU.")
    threads: int = setting(1, "CPU threads of each process.", ge=1)
    world_size: int = setting(1, "Processes.", ge=1)
    micro_batch: int | None = setting(None, "Samples a device takes at once; None lets the worker take the batch.")
    evaluation_batch: int | None = setting(None, "Samples an evaluation takes at once, after a back-off.")
    loss_chunk: int | None = setting(None, "Gradient-cache chunk of a loss that couples samples, after a back-off.")
    parameters: dict[str, int] = setting(
        default_factory=dict, description="Parameters of a command that a back-off from out-of-memory changed."
    )
    address_space: int | None = setting(None, "RLIMIT_AS of the worker in bytes (for tests of out-of-memory).")


class Order(Strict):
    """One run to do. Written by the launcher to `order.json` of the run folder, read by the worker."""

    format: Literal[1] = 1
    key: str
    stage: str = setting(..., "Name of the stage in its pipeline.")
    kind: str = setting(..., "Stage kind, which names the code that runs.")
    task: str
    study: str
    profile: str
    experiment: str = setting(..., "First experiment that asked for the run, for people; not part of the key.")
    seed: int | None = setting(None, "None when the stage draws nothing from the seed.")
    version: int = setting(1, "Version of the stage's code that the key was made with.")
    sections: dict[str, dict[str, Any]] = setting(
        default_factory=dict, description="Task sections (model, data, ...) fully resolved, defaults included."
    )
    parameters: dict[str, Any] = setting(
        default_factory=dict, description="The stage's own parameters, fully resolved, defaults included."
    )
    inputs: tuple[Input, ...] = ()
    folder: str = setting(..., "The run folder, absolute.")
    attempt: int = setting(1, "Number of this attempt; its files are in attempts/<n>/.", ge=1)
    resources: Resources = setting(default_factory=Resources)
    revisions: dict[str, str] = setting(
        default_factory=dict, description="Hub revisions of the study's lock file, by its names (dataset:owner/name)."
    )
    numerics: Numerics | None = setting(None, "Set on resume: the record of the first attempt, to be kept.")
    mode: Literal["run", "probe", "rehearse"] = setting(
        "run", "probe: build, two steps, facts. rehearse: probe plus one validation and one checkpoint."
    )
    deadline: float | None = setting(None, "Unix time at which to checkpoint and stop.")
    source: str | None = setting(None, "Folder of the frozen source, put first on the import path.")
    study_folder: str | None = setting(None, "Folder of the study file; relative paths of the study start there.")
    wanted: tuple[str, ...] = setting((), "Metrics the study judges by that only this run can yield.")
    track: tuple[str, ...] = setting((), "Trackers to mirror events to: tensorboard, wandb, mlflow, trackio.")
