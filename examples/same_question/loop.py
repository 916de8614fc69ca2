"""A plain training loop over the lab's own data and model, without its loop, its worker or its checkpoints."""

import argparse
import pathlib

import torch
from safetensors.torch import save_file

from ablab.data.corpora import Prepared
from ablab.models.gpt import GPT, Shape
from ablab.models.loss import IGNORE
from ablab.tasks.language_modeling.windows import TrainWindows, WholeSplit

p = argparse.ArgumentParser()
p.add_argument("--corpus")
p.add_argument("--width", type=int)
p.add_argument("--steps", type=int)
p.add_argument("--seed", type=int)
p.add_argument("--out", type=pathlib.Path)
a = p.parse_args()

corpus = Prepared(pathlib.Path(a.corpus))
shape = Shape(
    vocabulary=corpus.vocabulary,
    width=a.width,
    layers=1,
    heads=2,
    hidden=4 * a.width,
    context=16,
    dropout=0.0,
    bias=True,
    attention_bias=False,
    tied_head=True,
    initial_std=0.02,
    query_key="trained",
    query_key_scale=None,
    unfrozen_layers=0,
    attention_output="trained",
)
model = GPT(shape, seed=a.seed, store_frozen="weights")
train = TrainWindows(corpus.tokens("train"), context=16)
order = train.order(a.seed, 0)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
for step in range(a.steps):
    batch = train.batch(order[8 * step : 8 * step + 8], seed=a.seed, step=step)
    loss = model(batch["inputs"], batch["targets"]) / batch["targets"].numel()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step + 1}: loss {loss.item():.8f}")
model.eval()
val = WholeSplit(corpus.tokens("val"), context=16, end_of_text=corpus.end_of_text)
with torch.no_grad():
    batch = val.batch(val.order(0, 0), seed=0, step=0)
    nats, count = model(batch["inputs"], batch["targets"]).item(), (batch["targets"] != IGNORE).sum().item()
print(f"val loss {nats / count:.8f}")
save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, a.out / "model.safetensors")
