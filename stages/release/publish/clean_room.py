"""The child of `clean_load`: loads what is published as a stranger would. Run as a file, `python -I clean_room.py FOLDER`.

It imports nothing of ours: isolated from the current folder and from PYTHONPATH, an editable install taken off the path
as well (unless the request allows Groundup), sockets refused. Each room holds `owner/name`, a link to a folder, so that the
code of the card runs as it stands: `from_pretrained("owner/name")` finds the folder before it would ask the Hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Answer `request.json` in `folder` with `answer.json` and `logits.safetensors`."""
    request = json.loads((folder / "request.json").read_bytes())
    _shut_out(request["groundup"])
    warnings.simplefilter("ignore")
    printed = {}
    made: dict[str, Any] = {}
    for room in request["rooms"]:
        os.chdir(folder / room)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            made[room] = run_card(request["code"], request["result"])
        printed[room] = output.getvalue()
    os.chdir(folder / "published")
    answer: dict[str, Any] = {"printed": printed["published"][-2000:], "without_groundup": not _sees_groundup()}
    if request["result"]:
        answer["equal"] = _equal(made["published"], made["artifact"])
        answer["shape"] = list(made["published"].shape)
    answer |= _LOOKS[request["loader"]](folder, request) if request["loader"] in _LOOKS else {}
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def run_card(code: str, result: str) -> Any:
    """Run the code block of a card; return the variable `result`."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102  # our own card's code, which is what is to be tried
    return names[result] if result else None


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


def _equal(published: Any, artifact: Any) -> bool:
    import torch

    return bool(torch.equal(torch.as_tensor(published), torch.as_tensor(artifact)))


def _causal_lm(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    home = request["base"] or request["repo"]
    model = AutoModelForCausalLM.from_pretrained(home, dtype=torch.float32, trust_remote_code=False, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(home, trust_remote_code=False)
    if request["base"]:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, request["repo"])
    torch.set_num_threads(request["threads"])
    ids = load_file(folder / "input.safetensors")["input_ids"]
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, use_cache=False).logits.float()
    save_file({"logits": logits.contiguous()}, folder / "logits.safetensors")
    prompt = ids[:1, :4]
    torch.manual_seed(0)  # the model's own settings may sample: the same words each time
    made = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, min_new_tokens=8)
    new = made[0, prompt.shape[1] :]
    return {"generated": tokenizer.decode(new), "num_generated": len(new), "class": type(model).__name__}


def _tokenizer(folder: Path, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001  # all looks are called alike
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(request["repo"], trust_remote_code=False)
    return {"encodings": [tokenizer(text).input_ids for text in request["texts"]], "class": type(tokenizer).__name__}


def _data(folder: Path, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    from datasets import load_dataset

    data = load_dataset(request["repo"])
    return {"rows": {split: rows_digest(rows) for split, rows in data.items()}, "class": type(data).__name__}


def rows_digest(rows: Any) -> list[Any]:
    """Return the number of rows and the sha256 over all of them, column by column in the order of their names."""
    found = hashlib.sha256()
    for batch in rows.select_columns(sorted(rows.column_names)).with_format(None).iter(1000):
        found.update(json.dumps(batch, sort_keys=True, ensure_ascii=True).encode())
    return [len(rows), found.hexdigest()]


_LOOKS = {"causal_lm": _causal_lm, "adapter": _causal_lm, "tokenizer": _tokenizer, "text": _data, "images": _data}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
