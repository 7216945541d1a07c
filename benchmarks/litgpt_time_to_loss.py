"""Wall time to the loss that `litgpt pretrain` reaches: `python -m benchmarks.litgpt_time_to_loss [--seeds 3]`.

As `benchmarks.time_to_loss`: same text, vocabulary, context, judge and rule for our number of steps. The peer: a Pythia of 4
layers of 128 (litgpt's own model class), AdamW, 2,000 steps of 12 x 64 tokens, cosine decay after 100 warm-up steps, best of
three learning rates, fp32 on CPU. litgpt compiles its model; that, its start and its validation are not counted: its time is
read off its own log lines between step 200 and the last one and scaled to all steps.

litgpt gets a virtual environment of its own, `build/litgpt`, with the torch of ours; `PIP_ARGS` is passed to pip.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import ROOT, Table
from benchmarks.stream import CONTEXT_LENGTH, stream_loss

VENV = ROOT / "build" / "litgpt"
STEPS, ROWS, FIRST = 2_000, 12, 200
RATES = (1e-3, 3e-3, 6e-3)
_LINE = re.compile(r"\| iter (\d+) step \d+ \|")


def main() -> None:
    """Measure and print, or be the peer's side inside its environment."""
    arguments = _parse()
    if arguments.side:
        print(json.dumps(_peer(arguments)))
        return
    from benchmarks.time_to_loss import TUNING_SEED, compare, describe, prepare, rows_of, run_side

    python = _environment()
    inputs = prepare(arguments.card, arguments.vocab_size)
    _write_texts(inputs)
    table = Table("Time to loss against litgpt pretrain", packages=["torch", "transformers"], other="litgpt")

    def peer(rate: float, seed: int) -> dict[str, float]:
        flags = ["--rate", str(rate), "--seed", str(seed), "--steps", str(arguments.steps)]
        return run_side("litgpt", inputs, *flags, python=[str(python), "-m", "benchmarks.litgpt_time_to_loss"])

    sweep = {rate: peer(rate, TUNING_SEED) for rate in RATES}
    best = min(sweep, key=lambda rate: sweep[rate]["loss"])
    lowest = sweep[best]["loss"]
    theirs, ours, num_steps = compare(inputs, lambda seed: peer(best, seed), lowest, arguments)
    target = min(lowest, *(run["loss"] for run in theirs))
    shown = [str(python), "-c", "import importlib.metadata as m; print(*(f'{p} {m.version(p)}' for p in ('litgpt', 'torch')))"]
    notes = [
        "litgpt's environment: " + subprocess.run(shown, capture_output=True, text=True, check=True).stdout.strip() + ".",
        "litgpt's sweep: " + ", ".join(f"{rate:g}: {found['loss']:.4f}" for rate, found in sweep.items()) + " nats/token.",
        describe(ours, theirs, num_steps, target, inputs),
    ]
    table.show(rows_of(ours, theirs, target), notes)


def _environment() -> Path:
    """Create litgpt's virtual environment once; return its interpreter."""
    python = VENV / "bin" / "python"
    if not (VENV / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        torch_version = importlib.metadata.version("torch").partition("+")[0]
        packages = [f"torch=={torch_version}", "litgpt", "litdata", "requests"]
        command = [str(python), "-m", "pip", "install", "--quiet", *shlex.split(os.environ.get("PIP_ARGS", "")), *packages]
        subprocess.run(command, check=True)
        # litdata brings a torchvision that need not fit a CPU build of torch; then torchmetrics fails to import it
        subprocess.run([str(python), "-m", "pip", "uninstall", "--yes", "--quiet", "torchvision"], check=True)
        (VENV / "complete").touch()
    return python


def _write_texts(inputs: Path) -> None:
    """Write one text file per document: litgpt puts the start token before each, which gives our token stream."""
    from pipeline.artifact import Artifact
    from stages.common.corpus_io import load_split

    facts = json.loads((inputs / "facts.json").read_text())
    for split in ("train", "validation"):
        folder = inputs / f"litgpt-{split}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number, text in enumerate(load_split(Artifact.open(Path(facts["corpus"])), split)["text"]):
            (folder / f"{number:05}.txt").write_text(text, encoding="utf-8")


def _peer(arguments: argparse.Namespace) -> dict[str, float]:
    facts = json.loads((arguments.inputs / "facts.json").read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(_settings(arguments, facts, folder)))
        startup, seconds = _run_litgpt(folder, arguments.steps)
        model, num_parameters = _load(folder / "out" / "final" / "lit_model.pth", facts["vocab_size"])
    stream = np.load(arguments.inputs / "validation.npy")
    loss = stream_loss(model, stream)
    return {
        "loss": loss,
        "bits_per_byte": loss * (len(stream) - 1) / math.log(2) / facts["validation_bytes"],
        "seconds": seconds,
        "num_tokens": arguments.steps * ROWS * CONTEXT_LENGTH,
        "startup_seconds": startup,
        "num_parameters": num_parameters,
    }


def _model_config(vocab_size: int) -> dict[str, Any]:
    sizes = {"n_layer": 4, "n_embd": 128, "n_head": 4, "block_size": CONTEXT_LENGTH}
    return {"name": "pythia-small", **sizes, "vocab_size": vocab_size, "padded_vocab_size": vocab_size}


def _settings(arguments: argparse.Namespace, facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    data = {"train_data_path": f"{arguments.inputs}/litgpt-train", "val_data_path": f"{arguments.inputs}/litgpt-validation"}
    return {
        "model_name": "pythia-14m",
        "model_config": _model_config(facts["vocab_size"]),
        "out_dir": str(folder / "out"),
        "precision": "32-true",
        "data": {"class_path": "litgpt.data.TextFiles", "init_args": data | {"num_workers": 1}},
        "train": {
            "save_interval": None,
            "log_interval": min(FIRST, arguments.steps // 2),
            "global_batch_size": ROWS,
            "micro_batch_size": ROWS,
            "max_tokens": arguments.steps * ROWS * CONTEXT_LENGTH,
            "max_seq_length": CONTEXT_LENGTH,
            "max_norm": 1.0,
            "min_lr": arguments.rate / 10,
            "lr_warmup_steps": min(100, arguments.steps // 2),
        },
        "eval": {"interval": 1_000_000, "max_iters": 1, "initial_validation": False, "final_validation": False},
        "optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": arguments.rate, "weight_decay": 0.1, "betas": [0.9, 0.99]},
        },
        "devices": 1,
        "tokenizer_dir": f"{facts['tokenizer']}/tokenizer",
        "logger_name": "csv",
        "seed": arguments.seed,
    }


def _run_litgpt(folder: Path, num_steps: int) -> tuple[float, float]:
    """Run `litgpt pretrain`; return seconds until its first log line and training seconds without compilation."""
    command = [str(Path(sys.executable).parent / "litgpt"), "pretrain", "--config", str(folder / "config.json")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    begin, seen, lines = time.perf_counter(), {}, []
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            lines.append(line)
            if found := _LINE.search(line):
                seen[int(found[1])] = time.perf_counter()
    if run.returncode or num_steps not in seen:
        sys.exit("litgpt pretrain failed:\n" + "".join(lines[-40:]))
    first = min(seen)
    per_step = (seen[num_steps] - seen[first]) / (num_steps - first)
    return seen[first] - begin - per_step * first, per_step * num_steps


def _load(path: Path, vocab_size: int) -> tuple[Any, int]:
    from litgpt.config import Config
    from litgpt.model import GPT

    model = GPT(Config(**_model_config(vocab_size)))
    weights = torch.load(path, map_location="cpu", weights_only=False)["model"]  # written by our own run a moment ago
    model.load_state_dict({key.removeprefix("_orig_mod."): value for key, value in weights.items()})
    return model.eval(), sum(parameter.numel() for parameter in model.parameters())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each side that count")
    parser.add_argument("--card", default="shakespeare-plays")
    parser.add_argument("--vocab-size", type=int, default=262)
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of litgpt")
    inner = parser.add_argument_group("the peer's side (used by the script itself)")
    inner.add_argument("--side", choices=["litgpt"])
    inner.add_argument("--inputs", type=Path)
    inner.add_argument("--seed", type=int, default=1)
    inner.add_argument("--rate", type=float, default=3e-3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
