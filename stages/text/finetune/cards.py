"""Model cards of the artifact, of the adapter and of the merged model; licences of all texts are carried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from pipeline.contract import Context, write_bytes
from stages.text.finetune.base import Base
from stages.text.finetune.evaluation import Comparison


def write_cards(
    context: Context, *, base: Base, comparisons: Sequence[Comparison], licenses: Mapping[str, str], r: int, num_trainable: int
) -> None:
    """Write `card.md`, `adapter/README.md` and `merged/README.md`.

    Args:
        context: of the stage.
        base: what was fine-tuned.
        comparisons: what it brought.
        licenses: part (base, new text) -> its licence.
        r: rank of the adapter.
        num_trainable: parameters of the adapter.
    """
    adapter = [
        f"# LoRA adapter of rank {r} for {base.identity.name}",
        "",
        f"{num_trainable:,} parameters beside the frozen base, whose tensors have sha256 `{base.identity.tensors_sha256}`.",
        "It belongs to that base alone; `groundup_base.json` holds the same fact for programs.",
        "",
        '    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("BASE"), "adapter")',
    ]
    merged = [
        f"# {base.identity.name}, fine-tuned and merged",
        "",
        "A LoRA adapter folded into the weights of its base, in float32; loads with `AutoModelForCausalLM` and `AutoTokenizer`.",
    ]
    whole = [
        f"# {base.identity.name}, fine-tuned on another text",
        "",
        f"`adapter/` is a LoRA adapter of rank {r} ({num_trainable:,} parameters), `merged/` the model with it folded in.",
    ]
    results = ["", *(f"- {row.sentence()}" for row in comparisons)]
    licensed = ["", *(f"- Licence of the {part}: {_plain(name)}" for part, name in licenses.items())]
    limits = ["", "It continues text. It was not taught to follow instructions, and it invents facts."]
    peft, transformers = _front_matter(base, licenses, library="peft"), _front_matter(base, licenses, library="transformers")
    for path, head, body in (
        ("adapter/README.md", peft, adapter),
        ("merged/README.md", transformers, merged),
        ("card.md", transformers, whole),
    ):
        write_bytes(context.directory / path, "\n".join([head, *body, *results, *licensed, *limits, ""]).encode())


def _front_matter(base: Base, licenses: Mapping[str, str], *, library: str) -> str:
    names = sorted({name for several in licenses.values() for name in several.split(" and ")})
    values = {"library_name": library, "pipeline_tag": "text-generation"}
    if base.identity.revision:  # a repository of the Hub; other names mean nothing there
        values["base_model"] = base.identity.name
    values |= {"license": names[0]} if len(names) == 1 else {"license": "other", "license_name": " and ".join(names)}
    return "---\n" + yaml.safe_dump(values, sort_keys=True) + "---"


def _plain(text: str) -> str:
    """Return text of others as one line that Markdown shows as it is."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>#" else " " if c in "\r\n" else c for c in text)
