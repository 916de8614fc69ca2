"""A tiny GPT-2 of characters, trained by transformers' Trainer; built from its configuration, nothing is downloaded."""

import argparse
import lzma

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Windows(torch.utils.data.Dataset):
    def __init__(self, tokens, context):
        self.windows = tokens[: len(tokens) // context * context].view(-1, context)

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, index):
        return {"input_ids": self.windows[index], "labels": self.windows[index]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--max_steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--resume_from_checkpoint")
    args = parser.parse_args()

    with lzma.open(args.data, "rt", encoding="utf-8") as file:
        text = file.read()[2000:12000]
    letters = sorted(set(text))
    tokens = torch.tensor([letters.index(letter) for letter in text])
    train, val = Windows(tokens[:9000], 32), Windows(tokens[9000:], 32)

    torch.manual_seed(args.seed)
    config = GPT2Config(
        vocab_size=len(letters),
        n_positions=32,
        n_embd=32,
        n_layer=args.layers,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(
            output_dir=args.output_dir,
            learning_rate=args.learning_rate,
            max_steps=args.max_steps,
            per_device_train_batch_size=16,
            seed=args.seed,
            logging_steps=10,
            eval_strategy="steps",
            eval_steps=10,
            save_steps=10,
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=train,
        eval_dataset=val,
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_state()


if __name__ == "__main__":
    main()
