"""A character model of a text as a LightningModule, logged to CSV."""

import argparse
import lzma

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Characters(pl.LightningModule):
    def __init__(self, letters, hidden, lr):
        super().__init__()
        self.save_hyperparameters()
        self.model = nn.Sequential(
            nn.Embedding(letters, 16), nn.Flatten(), nn.Linear(16 * 8, hidden), nn.Tanh(), nn.Linear(hidden, letters)
        )

    def training_step(self, batch, index):
        inputs, targets = batch
        loss = F.cross_entropy(self.model(inputs), targets)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, index):
        inputs, targets = batch
        self.log("val_loss", F.cross_entropy(self.model(inputs), targets))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--max_epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--default_root_dir", default=".")
    parser.add_argument("--ckpt_path")
    args = parser.parse_args()

    pl.seed_everything(args.seed)
    with lzma.open(args.data, "rt", encoding="utf-8") as file:
        text = file.read()[2000:12000]
    letters = sorted(set(text))
    windows = torch.tensor([letters.index(letter) for letter in text]).unfold(0, 9, 1)
    train, val = windows[:9000], windows[9000:]
    trainer = pl.Trainer(
        max_epochs=args.max_epochs,
        default_root_dir=args.default_root_dir,
        logger=CSVLogger(args.default_root_dir),
        callbacks=[ModelCheckpoint(dirpath=args.default_root_dir, save_last=True)],
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        Characters(len(letters), args.hidden, args.lr),
        DataLoader(TensorDataset(train[:, :-1], train[:, -1]), batch_size=256, shuffle=True),
        DataLoader(TensorDataset(val[:, :-1], val[:, -1]), batch_size=1024),
        ckpt_path=args.ckpt_path,
    )


if __name__ == "__main__":
    main()
