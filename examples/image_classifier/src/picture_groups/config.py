"""What the task declares; no torch here, since planning a study must not wait for it."""

from dataclasses import replace

from ablab.contract import stages
from ablab.contract.base import Strict, setting
from ablab.contract.task import DataReference, Metric, TaskSpec


class Model(Strict):
    """A small convolutional network."""

    channels: int = setting(16, "Channels of the first layer; each later one doubles them.", ge=1)
    layers: int = setting(2, "Convolutions, each followed by pooling.", ge=0, le=4)


TRAIN = replace(
    stages.TRAIN,
    sections=("model",),
    inputs=(),
    references=lambda *_: [DataReference(kind="bundled", name="emoji", path="pictures")],
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
