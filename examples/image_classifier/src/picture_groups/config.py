"""What the task declares; no torch here, since planning a study must not wait for it."""

from ablab.contract.base import Strict, setting
from ablab.contract.task import DataReference, Metric, StageSpec, TaskSpec
from ablab.contract.training import Train


class Model(Strict):
    """A small convolutional network."""

    channels: int = setting(16, "Channels of the first layer; each later one doubles them.", ge=1)
    layers: int = setting(2, "Convolutions, each followed by pooling.", ge=0, le=4)


TRAIN = StageSpec(
    kind="train",
    parameters=Train,
    sections=("model",),
    run="ablab.worker.stages.train:run",
    references=lambda *_: [DataReference(kind="bundled", name="emoji", path="pictures")],
    steps=lambda _, parameters: parameters.steps,
    effective_batch=lambda _, parameters: parameters.batch,
    makes_checkpoints=True,
    metrics=("train/loss", "val/loss", "val/accuracy"),
)

SPEC = TaskSpec(
    name="picture-groups",
    title="Groups of pictures",
    sections={"model": Model},
    stages={"train": TRAIN},
    pipeline={"train": {}},
    metrics=(
        Metric(name="*/loss", direction="lower", unit="nats", description="Mean cross-entropy of a picture's group."),
        Metric(name="*/accuracy", direction="higher", description="Share of pictures put into the right group."),
    ),
    code="picture_groups.task:PictureGroups",
)
