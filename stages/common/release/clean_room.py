"""The child of `clean_process`: loads what is published as a stranger would. Run as a file, `python -I clean_room.py FOLDER`.

It imports nothing of ours: isolated from the current folder and from PYTHONPATH, an editable install taken off the path
as well (unless the request allows Groundup for our own classes), sockets refused, no token. It does in turn what it is asked:

    card       run the code of the card in each room, compare what it made; a room holds `owner/name`, a link to a folder, so
               that the code runs as it stands: `from_pretrained("owner/name")` finds the folder before it would ask the Hub
    logits     of a language model for given ids, and 8 tokens
    encodings  of a tokenizer
    rows       number and sha256 of the rows of each split
    measure    one number:
                   causal_lm, adapter   bits_per_byte     negative log-likelihood of some texts, log base 2, per byte of UTF-8
                   tokenizer            tokens_per_byte   of those texts
                   data                 mean_bytes        length of the rows of all splits, as JSON
                   images               see image_figure  bits per dimension, accuracy or the like, with Groundup's own code
                   card                 mean              of the tensor that the code of the card makes from its seed
"""

from __future__ import annotations

import contextlib
import hashlib
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


def main(folder: Path) -> None:
    """Answer `request.json` in `folder` with `answer.json`: an answer for each task, in their order."""
    request = json.loads((folder / "request.json").read_bytes())
    _shut_out(request["groundup"])
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()):
        answers = [_TASKS[task["do"]](folder, task) for task in request["tasks"]]
    answer = {"without_groundup": not _sees_groundup(), "answers": answers}
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _shut_out(groundup: str | None) -> None:
    def refuse(event: str, _arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo"):
            raise OSError("what is published must load without a network")

    sys.addaudithook(refuse)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _is_editable(finder)]
    sys.path[:] = [entry for entry in sys.path if not (Path(entry) / "stages" / "common").is_dir()]
    if groundup:
        sys.path.insert(0, groundup)
    elif _sees_groundup():
        raise RuntimeError("Groundup can be imported here, so nothing would be proved")


def _is_editable(finder: object) -> bool:
    return getattr(finder, "__module__", "").startswith("__editable__") or "editable" in type(finder).__name__.lower()


def _sees_groundup() -> bool:
    return importlib.util.find_spec("stages") is not None


# ---- the card


def _card(folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for room in task["rooms"]:
        os.chdir(folder / room)
        names = _run(task["code"])
        made[room] = names[task["result"]] if task["result"] else None
    os.chdir(folder / "published")
    if not task["result"]:
        return {}
    return {"equal": _equal(made["published"], made["artifact"]), "shape": list(made["published"].shape)}


def _run(code: str) -> dict[str, Any]:
    """Run the code block of a card; return its variables."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102  # our own card's code, which is what is to be tried
    return names


def _equal(published: Any, artifact: Any) -> bool:
    import torch

    return bool(torch.equal(torch.as_tensor(published), torch.as_tensor(artifact)))


# ---- what is loaded


def _model(home: str, adapter: str | None) -> tuple[Any, Any]:
    """Return model and tokenizer of the folder or repository `home`, with an adapter on top."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(home, dtype=torch.float32, trust_remote_code=False, use_safetensors=True)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval(), AutoTokenizer.from_pretrained(home, trust_remote_code=False)


def _logits(folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file, save_file

    model, tokenizer = _model(task["base"] or task["repo"], task["repo"] if task["base"] else None)
    torch.set_num_threads(task["threads"])
    ids = load_file(folder / "input.safetensors")["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits.float()
    save_file({"logits": logits.contiguous()}, folder / "logits.safetensors")
    prompt = ids[:1, :4]
    torch.manual_seed(0)  # the model's own settings may sample: the same words each time
    made = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, min_new_tokens=8)
    new = made[0, prompt.shape[1] :]
    return {"generated": tokenizer.decode(new), "num_generated": len(new), "class": type(model).__name__}


def _encodings(folder: Path, task: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001  # all tasks are called alike
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(task["repo"], trust_remote_code=False)
    return {"encodings": [tokenizer(text).input_ids for text in task["texts"]], "class": type(tokenizer).__name__}


def _rows(folder: Path, task: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    from datasets import load_dataset

    data = load_dataset(task["repo"])
    return {"rows": {split: rows_digest(rows) for split, rows in data.items()}}


def rows_digest(rows: Any) -> list[Any]:
    """Return the number of rows and the sha256 over all of them, column by column in the order of their names."""
    found = hashlib.sha256()
    for batch in rows.select_columns(sorted(rows.column_names)).with_format(None).iter(1000):
        found.update(json.dumps(batch, sort_keys=True, ensure_ascii=True).encode())
    return [len(rows), found.hexdigest()]


# ---- one number


def _measure(folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    metric, value, num = _MEASURES[task["kind"]](Path(task["folder"]), task | {"room": folder})
    return {"metric": metric, "value": value, "n": num}


def _bits_per_byte(folder: Path, task: dict[str, Any]) -> tuple[str, float, int]:
    import torch

    model, tokenizer = _model(task["base"] or str(folder), str(folder) if task["base"] else None)
    boundary = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    longest = int(getattr(model.config, "max_position_embeddings", 0) or 1024)
    nats, num_bytes = 0.0, 0
    for text in task["texts"]:
        ids = [boundary or 0, *tokenizer(text, add_special_tokens=False).input_ids][:longest]
        if len(ids) < 2:
            continue
        input_ids = torch.tensor([ids])
        with torch.no_grad():
            loss = model(input_ids=input_ids, labels=input_ids, use_cache=False).loss  # mean over the ids after the first
        nats += float(loss) * (len(ids) - 1)
        num_bytes += len(str(tokenizer.decode(ids[1:])).encode())
    return "bits_per_byte", nats / math.log(2) / max(num_bytes, 1), num_bytes


def _tokens_per_byte(folder: Path, task: dict[str, Any]) -> tuple[str, float, int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    num_bytes = sum(len(text.encode()) for text in task["texts"])
    return "tokens_per_byte", sum(len(tokenizer.encode(text).ids) for text in task["texts"]) / num_bytes, num_bytes


def _mean_bytes(folder: Path, _task: dict[str, Any]) -> tuple[str, float, int]:
    from datasets import load_dataset

    splits = load_dataset(str(folder))
    lengths = [
        len(json.dumps(row, sort_keys=True, default=repr).encode())
        for rows in splits.values()
        for batch in rows.with_format(None).iter(1000)
        for row in zip(*batch.values(), strict=True)
    ]
    return "mean_bytes", sum(lengths) / max(len(lengths), 1), len(lengths)


def _image_figure(folder: Path, _task: dict[str, Any]) -> tuple[str, float, int]:
    from stages.common.release.image_figure import image_figure

    return image_figure(folder)


def _mean(folder: Path, task: dict[str, Any]) -> tuple[str, float, int]:
    """Run the code of the card on the folder: the name of the repository in it becomes a link to the folder."""
    import torch

    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    if code is None:
        raise RuntimeError("README.md shows no code")
    link = Path(task["room"], task["repo"])
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder.resolve())
    os.chdir(task["room"])
    made = [value for value in _run(code[1]).values() if isinstance(value, torch.Tensor) and value.numel() > 1]
    if not made:
        raise RuntimeError("the code of README.md makes no tensor")
    return "mean", float(made[-1].double().mean()), made[-1].numel()


_MEASURES = {
    "causal_lm": _bits_per_byte,
    "adapter": _bits_per_byte,
    "tokenizer": _tokens_per_byte,
    "data": _mean_bytes,
    "images": _image_figure,
    "card": _mean,
}
_TASKS = {"card": _card, "logits": _logits, "encodings": _encodings, "rows": _rows, "measure": _measure}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
