"""The task itself: model, data, loss and metrics. Everything else is Ablab's."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ablab.contract.seeds import stream_seed
from ablab.data.emoji import concepts, drawings
from ablab.training.task import Losses

GROUPS = ("animals-nature", "food-drink", "objects", "travel-places")


class Pictures:
    def __init__(self, split):
        # Every fifth picture is for validation.
        kept = [thing for n, thing in enumerate(concepts(GROUPS)) if (n % 5 == 0) == (split != "train")]
        images = drawings("google", [thing.code for thing in kept]).values()
        self.samples = len(kept)
        self.pixels = torch.stack(
            [torch.from_numpy(np.array(i.resize((32, 32)))).permute(2, 0, 1) / 255 for i in images]
        )
        self.labels = torch.tensor([GROUPS.index(thing.group) for thing in kept])

    def order(self, seed, epoch):
        return np.random.default_rng(stream_seed(seed, "data-order", epoch)).permutation(self.samples)

    def batch(self, ids, *, seed, step):
        return {"pixels": self.pixels[ids], "labels": self.labels[ids]}

    def weight(self, batch):
        return float(len(batch["labels"]))


class PictureGroups:
    def __init__(self, sections, *, inputs=(), study_folder=None):
        self.settings = sections["model"]

    def model(self, *, seed):
        torch.manual_seed(stream_seed(seed, "initialisation"))
        width, layers = 3, []
        for n in range(self.settings.layers):
            channels = self.settings.channels * 2**n
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            width = channels
        side = 32 // 2**self.settings.layers
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side * side, len(GROUPS)))

    def data(self, split):
        return Pictures(split)

    def losses(self, model, batch):
        logits = model(batch["pixels"])
        right = (logits.argmax(-1) == batch["labels"]).sum()
        total = F.cross_entropy(logits, batch["labels"], reduction="sum")
        return Losses(total=total, weight=float(len(logits)), terms={"right": right.detach()})

    def metrics(self, split, totals, weight):
        return {f"{split}/loss": totals["loss"] / weight, f"{split}/accuracy": totals.get("right", 0.0) / weight}

    def facts(self, model, batch):
        return {}
