"""One number that a published folder gives when a stranger loads it: run as a file, `python -I measure.py REQUEST`.

It imports nothing of ours: isolated from the current folder and from PYTHONPATH, an editable install taken off the path as
well (unless the request allows Groundup for our own classes), sockets refused, no token. What is measured:

    causal_lm, adapter   bits_per_byte      negative log-likelihood of some texts, log base 2, for each byte of UTF-8
    tokenizer            tokens_per_byte    of those texts
    data                 mean_bytes         length of the rows of all splits, as JSON
    card                 mean               of the tensor that the code of the card makes from its seed
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any


def main(request_path: Path) -> None:
    """Answer the request (JSON) with one JSON line: metric, value, n."""
    request = json.loads(request_path.read_bytes())
    _shut_out(request["groundup"])
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()):
        metric, value, num = _MEASURES[request["kind"]](Path(request["folder"]), request)
    sys.stdout.write(json.dumps({"metric": metric, "value": value, "n": num}) + "\n")


def _shut_out(groundup: str | None) -> None:
    def refuse(event: str, _arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo"):
            raise OSError("what is published must load without a network")

    sys.addaudithook(refuse)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _is_editable(finder)]
    sys.path[:] = [entry for entry in sys.path if not (Path(entry) / "stages" / "common").is_dir()]
    if groundup:
        sys.path.insert(0, groundup)
    elif importlib.util.find_spec("stages") is not None:
        raise RuntimeError("Groundup can be imported here, so nothing would be proved")


def _is_editable(finder: object) -> bool:
    return getattr(finder, "__module__", "").startswith("__editable__") or "editable" in type(finder).__name__.lower()


def _language_model(folder: Path, request: dict[str, Any]) -> tuple[str, float, int]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    home = request["base"] or folder
    tokenizer = AutoTokenizer.from_pretrained(home, trust_remote_code=False)
    model: Any = AutoModelForCausalLM.from_pretrained(home, dtype=torch.float32, trust_remote_code=False, use_safetensors=True)
    if request["base"]:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder)
    model.eval()
    boundary = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    longest = int(getattr(model.config, "max_position_embeddings", 0) or 1024)
    nats, num_bytes = 0.0, 0
    for text in request["texts"]:
        ids = [boundary or 0, *tokenizer(text, add_special_tokens=False).input_ids][:longest]
        if len(ids) < 2:
            continue
        input_ids = torch.tensor([ids])
        with torch.no_grad():
            loss = model(input_ids=input_ids, labels=input_ids, use_cache=False).loss  # mean over the ids after the first
        nats += float(loss) * (len(ids) - 1)
        num_bytes += len(str(tokenizer.decode(ids[1:])).encode())
    return "bits_per_byte", nats / math.log(2) / max(num_bytes, 1), num_bytes


def _tokenizer(folder: Path, request: dict[str, Any]) -> tuple[str, float, int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    num_bytes = sum(len(text.encode()) for text in request["texts"])
    return "tokens_per_byte", sum(len(tokenizer.encode(text).ids) for text in request["texts"]) / num_bytes, num_bytes


def _data(folder: Path, _request: dict[str, Any]) -> tuple[str, float, int]:
    from datasets import load_dataset

    splits = load_dataset(str(folder))
    lengths = [
        len(json.dumps(row, sort_keys=True, default=repr).encode())
        for rows in splits.values()
        for batch in rows.with_format(None).iter(1000)
        for row in zip(*batch.values(), strict=True)
    ]
    return "mean_bytes", sum(lengths) / max(len(lengths), 1), len(lengths)


def _card(folder: Path, request: dict[str, Any]) -> tuple[str, float, int]:
    """Run the code of the card on the folder: the name of the repository in it becomes a link to the folder."""
    import torch

    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    if code is None:
        raise RuntimeError("README.md shows no code")
    link = Path(request["room"], request["repo"])
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder.resolve())
    os.chdir(request["room"])
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code[1], "README.md", "exec"), names)  # noqa: S102  # the code that the card tells everybody to run
    made = [value for value in names.values() if isinstance(value, torch.Tensor) and value.numel() > 1]
    if not made:
        raise RuntimeError("the code of README.md makes no tensor")
    return "mean", float(made[-1].double().mean()), made[-1].numel()


_MEASURES = {"causal_lm": _language_model, "adapter": _language_model, "tokenizer": _tokenizer, "data": _data, "card": _card}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
