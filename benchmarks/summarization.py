"""Fine-tuning and generation of a BART beside transformers' Seq2SeqTrainer with its defaults.

    python benchmarks/summarization.py [--rounds 6] [--steps 10] [--threads 2] [--precision fp32] [--only train]

Both train one model (KoBART's vocabulary of 30,000, three layers a side) from equal weights on the same generated
dialogues of mixed lengths, with batches of 8 and the same optimiser settings; both write summaries of the same test
rows with the same weights and beams. Each side runs in a process of its own, and they take turns, some steps each, so
that a change in the machine's load meets both alike. Tokens are target tokens; a ratio is of the sums over all
rounds, with the range over rounds.

Bars: 1.5 x the target tokens a second in training, 1.5 x the rows a second in generation, equal scores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH, TRAIN_ROWS, TEST_ROWS, SEED = 8, 1600, 64, 7
VOCABULARY, ENCODER_LENGTH, DECODER_LENGTH, BEAMS, NEW_TOKENS = 30_000, 768, 128, 4, 64
RATE, DECAY, CLIP = 5e-5, 0.0, 1.0
CONFIG = {
    "model_type": "bart",
    "vocab_size": VOCABULARY,
    "d_model": 256,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_ffn_dim": 1024,
    "decoder_ffn_dim": 1024,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 1024,
}
SIDES = {"peer": "Seq2SeqTrainer", "ours": "Ablab"}


def write_data(folder: Path) -> None:
    """Write the prepared dialogues: lengths spread as DialogSum's (mean about 400 characters, longest about 2,000)."""
    from ablab.data.dialogues import Dialogue, write_dialogues
    from ablab.data.generated_dialogues import generate_dialogues
    from ablab.tasks.summarization.sections import TAGS
    from ablab.tasks.summarization.tokens import train_tokenizer

    drawn = np.random.default_rng(SEED)

    def split(name: Any, count: int) -> list[Any]:
        joined = drawn.choice([1, 2, 3, 4, 5], p=[0.76, 0.14, 0.06, 0.03, 0.01], size=count)
        rows = generate_dialogues(name, rows=int(joined.sum()), seed=SEED)
        made = []
        for number, parts in enumerate(joined):
            told = [next(rows) for _ in range(parts)]
            text = "\n".join(row["dialogue"] for row in told)
            made.append(Dialogue(id=f"{name}-{number}", dialogue=text, summaries=tuple(told[-1]["summaries"])))
        return made

    splits = {"train": split("train", TRAIN_ROWS), "val": split("val", 32), "test": split("test", TEST_ROWS)}
    target = folder / "prepare-benchmark" / "artifacts" / "dialogues"
    target.mkdir(parents=True)
    texts = [text for row in splits["train"] for text in (row.dialogue, *row.summaries)]
    size = train_tokenizer(texts, target / "tokenizer", name="unigram", vocabulary=4000, tags=TAGS)
    facts = {"source": "generated", "overlaps": {}, "dropped": 0, "ascii_share": 0.0, "vocabulary": size, "cleaned": {}}
    write_dialogues(target, splits, tags=TAGS, facts=facts)


def task(folder: Path, steps: int, precision: str, rate: float = RATE) -> Any:
    """Return the task's code over the prepared dialogues, and its train parameters."""
    from ablab.contract.order import Input
    from ablab.tasks.summarization.config import SPEC, TrainSummaries
    from ablab.tasks.summarization.task import Summarization

    raw = {
        "model": {"checkpoint": {"config": CONFIG}},
        "input": {"encoder_length": ENCODER_LENGTH, "decoder_length": DECODER_LENGTH},
    }
    sections = {name: SPEC.sections[name].model_validate(values) for name, values in raw.items()}
    path = str(folder / "prepare-benchmark")
    given = Input(reference="prepare", stage="prepare", kind="prepare", key="benchmark", path=path)
    parameters = TrainSummaries.model_validate(
        {
            "steps": steps,
            "batch": BATCH,
            "precision": precision,
            "optimizer": {"learning_rate": rate, "weight_decay": DECAY},
            "schedule": {"name": "linear", "warmup": 0},
            "clip": CLIP,
            "validation": {"batches": 1},
            "checkpoints": {"seconds": 1e9},
            "log_every": 500,
        }
    )
    return Summarization(sections, inputs=(given,), parameters=parameters), parameters


class Turns:
    """Waits for a line on standard input before every so many steps, and answers with what they took."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.tokens, self.places = steps, 0, 0, 0
        self.began: tuple[float, float] | None = None

    def before(self, tokens: int, places: int) -> None:
        """Begin a step that has so many target tokens and so many padded places."""
        if self.done % self.steps == 0:
            self.answer()
            if not sys.stdin.readline():
                # Standard output is closed by now; nothing of the run is wanted any more.
                os._exit(0)
            self.began = (time.perf_counter(), time.process_time())
        self.done += 1
        self.tokens += tokens
        self.places += places

    def answer(self) -> None:
        """Tell what the steps since the last turn took."""
        if self.began is None:
            print(json.dumps({"ready": True}), flush=True)
            return
        wall, processor = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
        told = {"seconds": wall, "processor": processor, "tokens": self.tokens, "places": self.places}
        print(json.dumps(told), flush=True)
        self.tokens = self.places = 0


def train_ours(folder: Path, turns: Turns | None, steps: int, precision: str, rate: float = RATE) -> None:
    """Train through Ablab's loop with a real run folder."""
    from ablab.contract.order import Numerics, Order
    from ablab.store.layout import RunFolder
    from ablab.training.loop import train
    from ablab.worker.clock import Clock
    from ablab.worker.context import WorkerContext
    from ablab.worker.stopping import Stop

    code, parameters = task(folder, steps, precision, rate)
    losses = code.losses

    def counted(model: Any, batch: Any) -> Any:
        if model.training and turns is not None:
            turns.before(int((batch["labels"] != -100).sum()), batch["input_ids"].numel() + batch["labels"].numel())
        return losses(model, batch)

    code.losses = counted
    run = RunFolder(folder / ("taught" if turns is None else "train-ours")).create()
    order = Order(
        key="benchmark", stage="train", kind="train", task="summarization", study="s", profile="p", experiment="A",
        seed=SEED, folder=str(run.path),
    )  # fmt: skip
    numerics = Numerics(precision=precision)
    attempt = run.attempt(1).create()
    context = WorkerContext(order, run, attempt=attempt, numerics=numerics, clock=Clock(time.monotonic()), stop=Stop())
    train(code, parameters, context)


def peer_trainer(folder: Path, steps: int, precision: str, **options: Any) -> Any:
    """Return a Seq2SeqTrainer with its defaults over the same rows, and the encoder of texts."""
    import transformers

    code, _ = task(folder, steps, precision)
    model = code.model(seed=SEED)
    tokenizer = code.vocabulary.tokenizer
    arguments = transformers.Seq2SeqTrainingArguments(
        output_dir=str(folder / "peer"),
        per_device_train_batch_size=BATCH,
        max_steps=steps,
        bf16=precision == "bf16",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        seed=SEED,
        **options,
    )
    rows = {
        split: [{"input_ids": row.source.tolist(), "labels": row.target.tolist()} for row in code.encoded(split)]
        for split in ("train", "test")
    }
    trainer = transformers.Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=rows["train"],
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, model=model),
        processing_class=tokenizer,
    )
    return trainer, rows["test"], code


def train_peer(folder: Path, turns: Turns, steps: int, precision: str) -> None:
    """Train with transformers' Seq2SeqTrainer."""
    trainer, _, _ = peer_trainer(folder, steps, precision)
    compute = trainer.compute_loss

    def counted(model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        turns.before(int((inputs["labels"] != -100).sum()), inputs["input_ids"].numel() + inputs["labels"].numel())
        return compute(model, inputs, *given, **named)

    trainer.compute_loss = counted
    trainer.train()


def generate_ours(folder: Path, model: Any, code: Any) -> list[str]:
    """Write summaries of the test rows with Ablab."""
    import torch

    from ablab.contract.decoding import Decoding
    from ablab.generation.decoding import generate

    rows = [{"input_ids": torch.from_numpy(row.source)} for row in code.encoded("test")]
    return [
        code.encoder.decode(ids)
        for ids in generate(model, rows, decoding=Decoding(beams=BEAMS, max_new_tokens=NEW_TOKENS))
    ]


def generate_peer(trainer: Any, rows: list[Any], code: Any) -> list[str]:
    """Write summaries of the test rows with the trainer's predict loop, which needs labels and takes their loss."""
    made = trainer.predict(rows, num_beams=BEAMS, max_new_tokens=NEW_TOKENS).predictions
    made = np.where(made == -100, code.vocabulary.tokenizer.pad_token_id, made)
    return [code.encoder.decode(ids) for ids in made.tolist()]


def serve_generation(folder: Path, side: str) -> None:
    """Write the test set once for every line read."""
    from ablab.training.weights import load_weights

    trainer, rows, code = peer_trainer(folder, 1, "fp32", predict_with_generate=True)
    (weights,) = folder.glob("taught/checkpoints/*/model.safetensors")
    load_weights(weights, trainer.model)
    trainer.model.config.use_cache = trainer.model.generation_config.use_cache = True
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        texts = generate_ours(folder, trainer.model, code) if side == "ours" else generate_peer(trainer, rows, code)
        seconds, processor = time.perf_counter() - began, time.process_time() - used
        print(json.dumps({"seconds": seconds, "processor": processor, "rows": len(texts), "texts": texts}), flush=True)


class Process:
    """One side in a process of its own."""

    def __init__(self, arguments: list[str], *, threads: int) -> None:
        env = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",
            "TOKENIZERS_PARALLELISM": "0",
        }
        command = [sys.executable, __file__, *arguments, "--threads", str(threads)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.read()

    def turn(self) -> dict[str, Any]:
        """Let the side do its share and return what it took."""
        assert self.child.stdin is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """Return the next answer; anything else that is printed is passed over."""
        assert self.child.stdout is not None
        for line in self.child.stdout:
            if line.startswith("{") and ("ready" in line or "seconds" in line):
                return dict(json.loads(line))
        raise RuntimeError(f"{self.child.args} ended with status {self.child.wait()}")

    def close(self) -> None:
        """End the side."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait()


def measure(arguments: Callable[[str], list[str]], *, rounds: int, threads: int) -> dict[str, list[dict[str, Any]]]:
    """Return what each side took in every round; the first round warms up and is left out."""
    sides = {side: Process(arguments(side), threads=threads) for side in SIDES}
    try:
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for turn in range(rounds + 1):
            for side, process in sides.items():
                took = process.turn()
                if turn:
                    found[side].append(took)
        return found
    finally:
        for process in sides.values():
            process.close()


def training_table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the table of training."""
    rows = [
        "| training | target tokens/s | times the peer | by processor | padded places a target token |",
        "|---|--:|--:|--:|--:|",
    ]
    for side, name in SIDES.items():
        tokens, places = (sum(turn[what] for turn in found[side]) for what in ("tokens", "places"))
        speed = tokens / sum(turn["seconds"] for turn in found[side])
        ratios = [_ratio(found, side, "tokens", kind) for kind in ("seconds", "processor")]
        rows.append(f"| {name} | {speed:,.0f} | {ratios[0]} | {ratios[1]} | {places / tokens:.1f} |")
    return "\n".join(rows)


def generation_table(found: dict[str, list[dict[str, Any]]], scores: dict[str, float], equal: float) -> str:
    """Return the table of generation."""
    rows = ["| generation | rows/s | times the peer | by processor | ROUGE-1/2/L |", "|---|--:|--:|--:|--:|"]
    for side, name in SIDES.items():
        speed = sum(turn["rows"] for turn in found[side]) / sum(turn["seconds"] for turn in found[side])
        ratios = [_ratio(found, side, "rows", kind) for kind in ("seconds", "processor")]
        rows.append(f"| {name} | {speed:.2f} | {ratios[0]} | {ratios[1]} | {scores[side]} |")
    return "\n".join([*rows, "", f"Summaries that are equal: {100 * equal:.1f} %."])


def _ratio(found: dict[str, list[dict[str, Any]]], side: str, what: str, kind: str) -> str:
    """Return how many times the peer's rate a side reaches over all rounds, with the range over rounds."""

    def rate(turns: list[dict[str, Any]]) -> float:
        return sum(turn[what] for turn in turns) / sum(turn[kind] for turn in turns)

    each = [rate([mine]) / rate([theirs]) for mine, theirs in zip(found[side], found["peer"], strict=True)]
    return f"{rate(found[side]) / rate(found['peer']):.2f} ({min(each):.2f}-{max(each):.2f})"


def scores_of(folder: Path, texts: list[str]) -> str:
    """Return ROUGE of summaries of the test rows."""
    from ablab.metrics.rouge import ROUGE, corpus_rouge
    from ablab.metrics.text_tokens import words

    code, _ = task(folder, 1, "fp32")
    references = [row.summaries for row in code.prepared.rows("test")]
    means = corpus_rouge(texts, references, tokenizer=words, resamples=1).means
    return "/".join(f"{100 * means[name].value:.2f}" for name in ROUGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn in training")
    parser.add_argument("--warm", type=int, default=200, help="steps that train the model which then generates")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--only", choices=("train", "generate"))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        common = ["--folder", str(folder), "--precision", options.precision, "--rounds", str(options.rounds)]
        if options.only != "generate":
            steps = ["--steps", str(options.steps)]
            found = measure(
                lambda side: ["--serve", f"train-{side}", *common, *steps],
                rounds=options.rounds,
                threads=options.threads,
            )
            print(training_table(found), flush=True)
        if options.only != "train":
            teach = [sys.executable, __file__, "--serve", "teach", *common, "--warm", str(options.warm)]
            subprocess.run([*teach, "--threads", str(options.threads)], check=True, stdout=subprocess.DEVNULL)
            found = measure(lambda side: ["--serve", f"generate-{side}", *common], rounds=1, threads=options.threads)
            texts = {side: found[side][-1]["texts"] for side in SIDES}
            equal = sum(a == b for a, b in zip(*texts.values(), strict=True)) / TEST_ROWS
            print("\n" + generation_table(found, {side: scores_of(folder, texts[side]) for side in SIDES}, equal))


def serve(options: argparse.Namespace) -> None:
    """Be one side, or the teacher of the model that both generate with."""
    import torch

    torch.set_num_threads(options.threads)
    folder, (work, _, side) = Path(options.folder), options.serve.partition("-")
    steps = (options.rounds + 2) * options.steps
    if work == "train":
        train = train_ours if side == "ours" else train_peer
        train(folder, Turns(options.steps), steps, options.precision)
    elif work == "generate":
        serve_generation(folder, side)
    else:
        # At a higher rate, without warm-up, some runs diverge: equal empty texts would prove nothing.
        train_ours(folder, None, options.warm, "fp32", rate=5e-4)


if __name__ == "__main__":
    main()
