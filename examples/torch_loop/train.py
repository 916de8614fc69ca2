"""A character model of a text, in a plain PyTorch loop that prints its loss."""

import argparse
import lzma
import os

import torch
from torch import nn
from torch.nn import functional as F


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--context", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="out")
    parser.add_argument("--resume")
    args = parser.parse_args()

    with lzma.open(args.data, "rt", encoding="utf-8") as file:
        text = file.read()[2000:42000]
    letters = sorted(set(text))
    tokens = torch.tensor([letters.index(letter) for letter in text])
    windows = tokens.unfold(0, args.context + 1, 1)
    cut = int(len(windows) * 0.9)
    train, val = windows[:cut], windows[cut:]

    torch.manual_seed(args.seed)
    model = nn.Sequential(
        nn.Embedding(len(letters), 16),
        nn.Flatten(),
        nn.Linear(16 * args.context, args.hidden),
        nn.Tanh(),
        nn.Linear(args.hidden, len(letters)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    begin = 0
    if args.resume:
        saved = torch.load(args.resume, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        begin = saved["step"]
    os.makedirs(args.out, exist_ok=True)

    for step in range(begin + 1, args.steps + 1):
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        batch = train[torch.randint(len(train), (args.batch,), generator=generator)]
        loss = F.cross_entropy(model(batch[:, :-1]), batch[:, -1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == args.steps:
            with torch.no_grad():
                val_loss = F.cross_entropy(model(val[:, :-1]), val[:, -1])
            print(f"step {step}: loss {loss.item():.6f} val loss {val_loss.item():.6f}", flush=True)
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(saved, os.path.join(args.out, "last.tmp"))
            os.replace(os.path.join(args.out, "last.tmp"), os.path.join(args.out, "last.pt"))


if __name__ == "__main__":
    main()
