"""Tiny random causal LMs, a byte tokenizer and a corpus, built in the test, for fine-tuning and chat."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config

from pipeline.artifact import Artifact, Record, manifest
from pipeline.contract import Context
from stages.common.lora import lora_parameters

TEXTS = [f"ROMEO. But soft, what light {index} through yonder window breaks? It is the east." for index in range(40)]
IDS = torch.arange(32).reshape(2, 16) * 7 % 250
TINY: dict[str, Any] = {
    "seed": 3,
    "r": 4,
    "lora_alpha": 8.0,
    "context_length": 32,
    "global_batch_size_tokens": 128,
    "micro_batch_size": 2,
    "num_steps": 3,
    "num_evaluations": 0,
    "num_validation_documents": 2,
    "prompts": ["ROMEO. "],
    "sample_tokens": 4,
    "dtype": "float32",
}


def tiny_model(architecture: str = "qwen3", *, tied: bool = True, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Return a random model: 2 layers of width 32, 64 positions, 320 rows for 257 tokens."""
    torch.manual_seed(seed)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": 320, "tie_word_embeddings": tied}
    if architecture == "gpt2":
        config = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **(ids | changes))
    else:
        family = {"qwen3": Qwen3Config, "llama": LlamaConfig}[architecture]
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64}
        config = family(**(sizes | ids | changes))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes: id 0 opens and closes documents, ids 1 to 256 are bytes."""
    vocabulary = {"<|endoftext|>": 0} | {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 1)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def save_base(folder: Path, model: PreTrainedModel | None = None) -> Path:
    """Save a model with the byte tokenizer as `from_pretrained` loads it."""
    (model or tiny_model()).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def randomise(model: PeftModel) -> PeftModel:
    """Give every adapter weight a random value: B is zero at the start, and then nothing could be told apart."""
    generator = torch.Generator().manual_seed(1)
    for parameter in lora_parameters(model).values():
        parameter.data.normal_(0, 0.3, generator=generator)
    return model.eval()


def artifact(path: Path, *, stage: str, produces: str) -> Artifact:
    """Give the files in `path` a record."""
    record = Record(
        name=stage.rpartition(".")[2],
        stage=stage,
        produces=produces,
        fingerprint=path.name.ljust(64, "0"),
        identity={},
        inputs={},
        files=manifest(path),
        metrics=[],
        provenance={},
    )
    record.save(path)
    return Artifact.open(path)


def base_artifact(path: Path, model: PreTrainedModel | None = None) -> Artifact:
    """Return a pretrain artifact with a tiny model."""
    save_base(path / "model", model)
    return artifact(path, stage="stages.text.pretrain", produces="causal_lm")


def corpus(path: Path, texts: list[str] = TEXTS) -> Artifact:
    """Return a corpus artifact: `texts` to train on, some of them to measure on."""
    splits = {"train": texts, "validation": texts[:4], "test": texts[4:10]}
    DatasetDict({name: Dataset.from_dict({"text": rows}) for name, rows in splits.items()}).save_to_disk(str(path / "data"))
    (path / "statistics.json").write_text(json.dumps({"license": "cc-by-4.0"}))
    return artifact(path, stage="stages.text.corpus", produces="corpus")


def main() -> None:
    """As a script: train one rank on the inputs in a folder (DIRECTORY INPUTS VALUES), without measuring and saving."""
    from stages.text.finetune.config import Config
    from stages.text.finetune.run import train

    directory, inputs, values = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    directory.mkdir(parents=True, exist_ok=True)
    context = Context(
        directory,
        {role: [Artifact.open(inputs / role)] for role in ("base", "corpus")},
        process_index=int(os.environ.get("RANK", "0")),
        num_processes=int(os.environ.get("WORLD_SIZE", "1")),
        offline=True,
    )
    train(Config.parse(values, where="finetune"), context).training.accelerator.end_training()


if __name__ == "__main__":
    main()
