"""A tiny corpus and tokenizer for training tests, and a way to run the stage in one or more processes.

As a script (`python -m tests.equivalence.inputs DIRECTORY INPUTS VALUES`) it is one rank of a training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, DatasetDict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipeline.artifact import Artifact
from pipeline.contract import Context, StageConfig
from pipeline.errors import GroundupError
from tests.harness import commit, make_context

STAGE = "stages.text.pretrain"
TINY: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "head_dim": 16,
    "intermediate_size": 48,
    "context_length": 32,
    "global_batch_size_tokens": 128,
    "micro_batch_size": 2,
    "num_steps": 6,
    "num_evaluations": 2,
    "num_evaluation_documents": 4,
    "prompts": ["the "],
    "sample_tokens": 4,
    "dtype": "float32",
    "compile": False,
    "seed": 5,
}
SPECIALS = ("<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


class _Corpus(StageConfig):
    produces: ClassVar[str] = "corpus"


class _Tokenizer(StageConfig):
    produces: ClassVar[str] = "tokenizer"


def sentences(count: int, seed: int) -> list[str]:
    """Return made-up documents of 3 to 40 words with a simple grammar."""
    rng = np.random.default_rng(seed)
    words = [
        "the",
        "a",
        "one",
        "cat",
        "dog",
        "bird",
        "house",
        "sees",
        "finds",
        "eats",
        "red",
        "green",
        "small",
        "old",
        "in",
        "on",
        "near",
        "with",
        "and",
    ]
    return [" ".join(rng.choice(words, size=rng.integers(3, 40))) + "." for _ in range(count)]


def make_inputs(root: Path, *, num_documents: int = 60) -> dict[str, Artifact]:
    """Write a corpus and a tokenizer artifact under `root`."""
    corpus = make_context(root / "corpus")
    splits = {"train": (num_documents, 0), "validation": (8, 1), "test": (8, 2)}
    data = {name: Dataset.from_dict({"text": sentences(count, seed)}) for name, (count, seed) in splits.items()}
    DatasetDict(data).save_to_disk(str(root / "corpus" / "data"))
    (root / "corpus" / "statistics.json").write_text(json.dumps({"license": "cc0-1.0"}))
    tokenizer = make_context(root / "tokenizer")
    _train_tokenizer(sentences(60, 0)).save_pretrained(str(root / "tokenizer" / "tokenizer"))
    return {
        "corpus": commit("stages.text.corpus", _Corpus(), corpus),
        "tokenizer": commit("stages.text.tokenizer", _Tokenizer(), tokenizer),
    }


def open_inputs(root: Path) -> dict[str, Artifact]:
    """Open what `make_inputs` wrote."""
    return {role: Artifact.open(root / role) for role in ("corpus", "tokenizer")}


def _train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=SPECIALS[0], eos_token=SPECIALS[0], pad_token=SPECIALS[1])


def launch(
    directory: Path, inputs: Path, values: dict[str, Any], *, num_processes: int, file: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Train in new processes: plain `python` for one, `accelerate launch` on CPU (gloo) for more, with `file` if given."""
    command = [sys.executable, "-m"]
    if file:
        command += ["pipeline.ranks", "--config_file", str(file), "--num_processes", str(num_processes)]
        command += ["--main_process_port", "0", "--module"]
    elif num_processes > 1:
        command += ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(num_processes), "--num_machines", "1"]
        command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m"]
    command += ["tests.equivalence.inputs", str(directory), str(inputs), json.dumps(values)]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "FSDP_", "RANK", "WORLD"))
    }
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(inputs / "hf")}
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False, timeout=280)


def main() -> int:
    """Run one rank; a user's error is printed and ends it with its exit code."""
    from stages.text.pretrain.config import Config
    from stages.text.pretrain.run import run

    directory, inputs, values = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    config = Config.parse(values, where=STAGE)
    directory.mkdir(parents=True, exist_ok=True)
    context = Context(
        directory,
        {role: [artifact] for role, artifact in open_inputs(inputs).items()},
        process_index=int(os.environ.get("RANK", "0")),
        num_processes=int(os.environ.get("WORLD_SIZE", "1")),
        offline=True,
    )
    context.listen_for_stop()
    try:
        run(config, context)
    except GroundupError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    context.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
