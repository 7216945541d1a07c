"""Wall time to the loss that a plain `transformers.Trainer` reaches: `python -m benchmarks.time_to_loss [--seeds 5]`.

One text file (about 1 MB of plays), one byte-level vocabulary (`--vocab-size 262`: the 256 bytes and 6 control tokens), 64
tokens of context, about 0.8 million parameters, CPU, all cores. Both sides learn from the same tokens and are judged by
the same function on the same text: mean loss over contiguous rows of 64 tokens of the validation stream, the protocol of
the peer's own examples (documents joined by end tokens, no isolation).

- Trainer: GPT-2 (4 layers of 128, no dropout), AdamW, linear decay after 100 warm-up steps, 2,000 steps of 12 x 64 tokens,
  no evaluation, no saving, no logging; the learning rate is the best of three, on a seed of its own.
- Groundup: the pretrain stage's `run`, settings in OURS. Its number of steps is the shortest of LADDER that reaches the
  target on a seed of its own; the seeds that are reported played no part in that choice.

The target is the LOWEST loss of all Trainer runs, the sweep's included. Counted is the time of training: for the Trainer
`train()`, for us the loop and the first weights from token statistics. Start-up is reported apart; evaluation and saving
are counted on neither side.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.measuring import BUILD, ROOT, Row, Table, ratios, spread, stage_artifact
from benchmarks.stream import CONTEXT_LENGTH, stream_loss
from pipeline.artifact import Artifact
from pipeline.contract import Context
from stages.common.causal_lm import load_tokenizer
from stages.common.corpus_io import load_split
from stages.common.encoding import boundary_ids, encode_texts
from stages.common.statistics import ratio_interval

TEXT_BYTES = 1_000_000
TRAINER_STEPS, TRAINER_ROWS = 2_000, 12
TRAINER_RATES = (1e-3, 3e-3, 6e-3)
OURS: dict[str, Any] = {
    "depth": 4,
    "hidden_size": 128,
    "head_dim": 32,
    "intermediate_size": 320,
    "context_length": CONTEXT_LENGTH,
    "global_batch_size_tokens": 2048,
    "isolate_documents": False,
    "muon_learning_rate": 0.04,  # a few hundred steps: higher rate and shorter memory than the defaults
    "muon_momentum": 0.85,
    "num_evaluations": 0,
    "checkpoint_seconds": 1e9,
    "prompts": [],
}
"""Values of the pretrain stage's Config."""
LADDER = (120, 150, 180, 200, 220, 250, 300, 400, 560, 800)
"""Numbers of steps that are tried in turn."""
MARGIN = 0.01
"""The rung must beat the target by this much (nats/token) on the tuning seed, as seeds differ."""
TUNING_SEED = 1


def main() -> None:
    """Measure and print, or be one side."""
    arguments = _parse()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments)))
        return
    inputs = prepare(arguments.card, arguments.vocab_size)
    title = f"Time to loss against transformers.Trainer, vocabulary {arguments.vocab_size}"
    table = Table(title, packages=["torch", "transformers", "accelerate"], other="Trainer")
    steps = ["--trainer-steps", str(arguments.trainer_steps)]

    def peer(rate: float, seed: int) -> dict[str, float]:
        return run_side("trainer", inputs, "--rate", str(rate), "--seed", str(seed), *steps)

    sweep = {rate: peer(rate, TUNING_SEED) for rate in TRAINER_RATES}
    best = min(sweep, key=lambda rate: sweep[rate]["loss"])
    lowest = min(found["loss"] for found in sweep.values())
    theirs, ours, num_steps = compare(inputs, lambda seed: peer(best, seed), lowest, arguments)
    target = min(lowest, *(run["loss"] for run in theirs))
    notes = [
        "Trainer's sweep: " + ", ".join(f"{rate:g}: {found['loss']:.4f}" for rate, found in sweep.items()) + " nats/token.",
        describe(ours, theirs, num_steps, target, inputs),
    ]
    table.show(rows_of(ours, theirs, target), notes)


def compare(
    inputs: Path, peer: Callable[[int], dict[str, float]], target: float, arguments: argparse.Namespace
) -> tuple[list[dict[str, float]], list[dict[str, float]], int]:
    """Choose the number of steps on the tuning seed, then run both sides in turn on the seeds that count."""
    num_steps = next((n for n in LADDER if _ours(inputs, n, TUNING_SEED)["loss"] <= target - MARGIN), LADDER[-1])
    theirs, ours = [], []
    for seed in range(TUNING_SEED + 1, TUNING_SEED + 1 + arguments.seeds):
        pair = [lambda seed=seed: theirs.append(peer(seed)), lambda seed=seed: ours.append(_ours(inputs, num_steps, seed))]
        for work in pair if seed % 2 else reversed(pair):
            work()
    return theirs, ours, num_steps


def rows_of(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], target: float) -> list[Row]:
    """Return the rows of the comparison; a run of ours that misses the target makes the time row miss its own."""
    times, others = ([run["seconds"] for run in side] for side in (ours, theirs))
    ratio = ratios(times, others)
    reached = [run["loss"] <= target for run in ours]
    low, high = ratio_interval(times, others, seed=0)
    met = all(reached) and statistics.median(ratio) <= 0.5
    return [
        Row("training time to the target loss", spread(times, "s", 1), spread(others, "s", 1), spread(ratio), "<= 0.5", met),
        Row("ratio of the mean times, 95 % bootstrap interval over seeds", "", "", f"{low:.3f} to {high:.3f}"),
        Row("validation loss, nats/token", *(spread([run["loss"] for run in side], digits=4) for side in (ours, theirs))),
        Row("validation, bits/byte", *(spread([run["bits_per_byte"] for run in side], digits=4) for side in (ours, theirs))),
        Row(
            "runs at or below the target",
            f"{sum(reached)} of {len(reached)}",
            f"{sum(run['loss'] <= target for run in theirs)} of {len(theirs)}",
        ),
        Row("parameters", *(f"{side[0]['num_parameters']:,.0f}" for side in (ours, theirs))),
        Row("tokens seen", *(f"{side[0]['num_tokens']:,.0f}" for side in (ours, theirs))),
        Row("start-up, not counted", *(spread([run["startup_seconds"] for run in side], "s", 1) for side in (ours, theirs))),
    ]


def describe(ours: Any, theirs: Any, num_steps: int, target: float, inputs: Path) -> str:
    """Return what the comparison stood on."""
    facts = json.loads((inputs / "facts.json").read_text())
    return (
        f"Target {target:.4f} nats/token, the lowest of all peer runs; ours: {num_steps} steps of "
        f"{OURS['global_batch_size_tokens']} tokens, seeds {TUNING_SEED + 1} to {TUNING_SEED + len(ours)}, "
        f"{len(theirs)} peer runs in turn. Text: {facts['train_bytes']:,} bytes train, {facts['validation_bytes']:,} validation."
    )


def prepare(card: str, vocab_size: int) -> Path:
    """Make text file, corpus and tokenizer with the real stages, and the token streams; return their folder."""
    source = Artifact.open(stage_artifact("corpus", "--card", card))
    folder = BUILD / f"{card}-{vocab_size}"
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(load_split(source, "train")["text"]).encode()[:TEXT_BYTES].decode(errors="ignore")
    path = folder / "text.txt"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    flags = ["--files", str(path), "--validation_fraction", "0.1", "--near_duplicate_threshold", "null"]
    corpus = stage_artifact("corpus", *flags)
    tokenizer = stage_artifact("tokenizer", "--needs.corpus", str(corpus), "--vocab_size", str(vocab_size))
    facts: dict[str, Any] = {"corpus": str(corpus), "tokenizer": str(tokenizer), "vocab_size": vocab_size}
    for split in ("train", "validation"):
        texts = list(load_split(Artifact.open(corpus), split)["text"])
        np.save(folder / f"{split}.npy", _stream(load_tokenizer(tokenizer / "tokenizer"), texts))
        facts[f"{split}_bytes"] = sum(len(text.encode()) for text in texts)
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder


def _stream(tokenizer: Any, texts: list[str]) -> NDArray[np.int64]:
    """Return all documents as one row of ids, an end token before, between and after them."""
    _, eos_id = boundary_ids(tokenizer)
    ids = [eos_id]
    for tokens in encode_texts(tokenizer, texts):
        ids += [*tokens, eos_id]
    return np.array(ids)


def run_side(side: str, inputs: Path, *flags: str, python: Sequence[str] = ()) -> dict[str, float]:
    """Run one side in a process of its own and return what it found."""
    command = [*(python or [sys.executable, "-m", "benchmarks.time_to_loss"]), "--side", side, "--inputs", str(inputs), *flags]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:] + done.stderr[-4000:])
        done.check_returncode()
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    shown = ", ".join(f"{key} {value:.5g}" for key, value in found.items())
    print(f"{side} {' '.join(flags)}: {shown}", file=sys.stderr, flush=True)
    return found


def _ours(inputs: Path, num_steps: int, seed: int) -> dict[str, float]:
    return run_side("ours", inputs, "--steps", str(num_steps), "--seed", str(seed))


def _found(model: nn.Module, inputs: Path, *, seconds: float, num_tokens: int, startup_seconds: float) -> dict[str, float]:
    model.eval()
    stream = np.load(inputs / "validation.npy")
    loss = stream_loss(lambda ids: model(input_ids=ids, use_cache=False).logits, stream)
    num_bytes = json.loads((inputs / "facts.json").read_text())["validation_bytes"]
    return {
        "loss": loss,
        "bits_per_byte": loss * (len(stream) - 1) / math.log(2) / num_bytes,
        "seconds": seconds,
        "num_tokens": num_tokens,
        "startup_seconds": startup_seconds,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


class _Trained(Exception):
    """Leaves the stage after its last step: its closing evaluation and report are not measured here."""


def train_ours(arguments: argparse.Namespace) -> dict[str, float]:
    """Run the pretrain stage up to its last step and judge the model."""
    from stages.common import training
    from stages.text.pretrain import run as stage
    from stages.text.pretrain.config import Config

    facts = json.loads((arguments.inputs / "facts.json").read_text())
    first_weights, whole = Clocked(stage.initialise), Clocked(training.Training.run)
    summaries: list[training.TrainingSummary] = []

    def run(self: training.Training) -> training.TrainingSummary:
        summaries.append(whole(self))
        models.append(self.model)
        raise _Trained

    models: list[nn.Module] = []
    stage.initialise = first_weights  # type: ignore[assignment]
    training.Training.run = run  # type: ignore[method-assign]
    settings = OURS | json.loads(arguments.set)
    config = Config.parse(settings | {"num_steps": arguments.steps, "seed": arguments.seed}, where="time_to_loss")
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Trained):
        artifacts = {role: [Artifact.open(Path(facts[role]))] for role in ("corpus", "tokenizer")}
        stage.run(config, Context(Path(folder), artifacts, threads=len(os.sched_getaffinity(0)), offline=True))
    startup = _age() - first_weights.seconds - whole.seconds
    seconds = first_weights.seconds + whole.seconds - summaries[0].checkpoint_seconds
    return _found(models[0], arguments.inputs, seconds=seconds, num_tokens=summaries[0].num_tokens, startup_seconds=startup)


def train_trainer(arguments: argparse.Namespace) -> dict[str, float]:
    """Train a GPT-2 with a plain Trainer."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    facts = json.loads((arguments.inputs / "facts.json").read_text())
    torch.manual_seed(arguments.seed)
    sizes = {"vocab_size": facts["vocab_size"], "n_positions": CONTEXT_LENGTH, "n_embd": 128, "n_layer": 4, "n_head": 4}
    no_dropout = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    model = GPT2LMHeadModel(GPT2Config(**sizes, **no_dropout, bos_token_id=0, eos_token_id=0))
    stream = torch.from_numpy(np.load(arguments.inputs / "train.npy"))
    rows = [{"input_ids": row, "labels": row} for row in stream.split(CONTEXT_LENGTH) if len(row) == CONTEXT_LENGTH]
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=arguments.trainer_steps,
            per_device_train_batch_size=TRAINER_ROWS,
            learning_rate=arguments.rate,
            warmup_steps=min(100, arguments.trainer_steps // 2),
            weight_decay=0.1,
            adam_beta2=0.99,
            seed=arguments.seed,
            use_cpu=True,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(model=model, args=settings, train_dataset=rows)
        startup = _age()
        begin = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begin
    tokens = arguments.trainer_steps * TRAINER_ROWS * CONTEXT_LENGTH
    return _found(model, arguments.inputs, seconds=seconds, num_tokens=tokens, startup_seconds=startup)


SIDES = {"ours": train_ours, "trainer": train_trainer}


class Clocked:
    """A function with the wall seconds of its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call it."""
        begin = time.perf_counter()
        result = self.function(*arguments, **options)
        self.seconds += time.perf_counter() - begin
        return result


def _age() -> float:
    from stages.common.devices import seconds_since_start

    return seconds_since_start()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each side that count")
    parser.add_argument("--card", default="shakespeare-plays")
    parser.add_argument("--vocab-size", type=int, default=262)
    parser.add_argument("--trainer-steps", type=int, default=TRAINER_STEPS)
    inner = parser.add_argument_group("one side (used by the script itself)")
    inner.add_argument("--side", choices=sorted(SIDES))
    inner.add_argument("--inputs", type=Path)
    inner.add_argument("--steps", type=int, default=LADDER[0])
    inner.add_argument("--seed", type=int, default=TUNING_SEED)
    inner.add_argument("--rate", type=float, default=3e-3)
    inner.add_argument("--set", default="{}", help="JSON: values over OURS")
    return parser.parse_args()


if __name__ == "__main__":
    main()
