"""LoRA adapters that know their base: attaching, saving, loading and merging, each with the check that peft leaves out.

LoRA (Hu et al. 2021, arXiv 2106.09685) keeps a weight W frozen and learns a difference of low rank r beside it:
W' = W + (alpha / r) B A, with A (r, in) and B (out, r). B starts at zero, so training starts from the base exactly.

What goes wrong in silence with peft alone, and is refused here: one misspelt name among the target modules is ignored if
another matches; an adapter on a head that is tied to the embedding merges wrong; an adapter loads on another base of the
same shape. An adapter saved here carries `groundup_base.json` with the sha256 of the base's tensors.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pipeline.contract import write_json
from pipeline.errors import DataError, StageError, nearest
from stages.common.causal_lm import load_causal_lm

ALL_LINEAR = "all-linear"
BASE_FILE = "groundup_base.json"
_TARGETS = (nn.Linear, Conv1D, nn.Embedding)


@dataclass(frozen=True)
class BaseIdentity:
    """Which model an adapter belongs to.

    Attributes:
        name: for people: `pretrain:1a2b3c4d`, `owner/name`, or the name of a folder; never a path.
        tensors_sha256: of all tensors in the base's files, see `folder_sha256`; this is what binds.
        artifact: fingerprint of the artifact that holds the base, if it is one.
        revision: commit of the Hub repository, if it is one.
        license: of the base itself, as its card states it; whoever publishes carries it on. None in files written before.
    """

    name: str
    tensors_sha256: str
    artifact: str | None = None
    revision: str | None = None
    license: str | None = None


def folder_sha256(folder: Path) -> str:
    """Return the sha256 over all tensors in the safetensors files of a saved model, by name, type, shape and bytes.

    Sharding and the file's own header do not enter, so a copy that was sharded anew is still the same base.

    Raises:
        DataError: there are no safetensors, or a file is damaged.
    """
    files = _weight_files(folder)
    try:
        return _sha256(_stored_tensors(files))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder}: the weights cannot be read ({str(error).splitlines()[0]})") from None


def base_sha256(model: PeftModel | PreTrainedModel) -> str:
    """Return the sha256 over all parameters and buffers in memory that are not part of an adapter."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    tensors = [*plain.named_parameters(), *plain.named_buffers()]
    kept = {name.replace(".base_layer.", "."): tensor for name, tensor in tensors if "lora_" not in name}
    return _sha256(sorted(kept.items()))


def attach_lora(
    model: PreTrainedModel,
    *,
    r: int,
    lora_alpha: float,
    lora_dropout: float,
    target_modules: str | Sequence[str],
    seed: int,
) -> PeftModel:
    """Freeze `model` and put a trainable LoRA adapter beside its target modules (in place).

    Args:
        model: the base.
        r: rank of the difference.
        lora_alpha: the difference is scaled by lora_alpha / r.
        lora_dropout: share of a target's inputs that the adapter does not see in training.
        target_modules: "all-linear" (every linear layer but the output head), or last parts of module names.
        seed: A starts random, B at zero.

    Raises:
        DataError: a name matches no module that LoRA can adapt, or one that is tied to another.
    """
    names = [ALL_LINEAR] if isinstance(target_modules, str) else list(target_modules)
    if names == [ALL_LINEAR]:
        targets = [module for module in model.modules() if isinstance(module, (nn.Linear, Conv1D))]
    else:
        targets = _check_targets(model, names)
    config = LoraConfig(
        r=r,
        lora_alpha=lora_alpha,  # type: ignore[arg-type]  # a float works and is saved as it is
        lora_dropout=lora_dropout,
        target_modules=ALL_LINEAR if names == [ALL_LINEAR] else names,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in targets),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    with _quiet_peft():
        # GPT-2 mixes Conv1D, stored (in, out), with a linear head; peft sets the flag for each module and warns.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        return get_peft_model(model, config)


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name; with `attach_lora` these are A and B of every target."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def num_adapted(model: nn.Module) -> int:
    """Return how many modules have an adapter."""
    return sum(isinstance(module, BaseTunerLayer) for module in model.modules())


def save_adapter(model: PeftModel, folder: Path, base: BaseIdentity) -> None:
    """Save the adapter as peft does, plus what it belongs to; the same adapter gives the same bytes."""
    config = model.peft_config["default"]
    # A name that is no path and no Hub repository: peft must not look up a stranger's model under it.
    config.base_model_name_or_path = base.name
    config.revision = base.revision
    # Without this peft asks the Hub for the base's vocabulary size.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink()  # names the base by its path on this machine
    path = folder / "adapter_config.json"
    values = json.loads(path.read_bytes())
    if isinstance(values["target_modules"], list):
        values["target_modules"].sort()  # a set in peft
    write_json(path, values)
    write_json(folder / BASE_FILE, asdict(base))


def load_adapter(
    base_folder: Path, adapter_folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> PeftModel:
    """Load the base in `base_folder` with the adapter on top, in evaluation mode.

    Raises:
        DataError: the adapter was made for another base (both are named), or it is not whole.
    """
    made_for = read_base_identity(adapter_folder)
    found = folder_sha256(base_folder)
    if found != made_for.tensors_sha256:
        raise DataError(
            f"adapter {adapter_folder} belongs to another base: it was made for {made_for.name} with tensors "
            f"{made_for.tensors_sha256[:12]}, but {base_folder} has tensors {found[:12]}; give the base it was made for"
        )
    base = load_causal_lm(base_folder, device=device, dtype=dtype)
    with _quiet_peft():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(base, str(adapter_folder), local_files_only=True).eval()
        except (OSError, ValueError, RuntimeError, SafetensorError, UserWarning) as error:
            raise DataError(f"adapter {adapter_folder} cannot be loaded: {str(error).splitlines()[0]}") from None


def read_base_identity(adapter_folder: Path) -> BaseIdentity:
    """Return which base an adapter belongs to; raises DataError when it does not say."""
    path = adapter_folder / BASE_FILE
    try:
        return BaseIdentity(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        raise DataError(
            f"{path}: missing or unreadable, so nothing says which base the adapter belongs to; "
            "load it with peft yourself if you know"
        ) from None


def merge(model: PeftModel) -> PreTrainedModel:
    """Fold the adapter into the base's weights (in place) and return the plain model.

    Raises:
        StageError: the adapter holds a value that is not finite.
    """
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise StageError(f"the adapter cannot be merged: {error}") from None


@contextmanager
def _quiet_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 for a flag under its old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def _check_targets(model: PreTrainedModel, names: list[str]) -> list[nn.Module]:
    modules = {name: module for name, module in model.named_modules() if isinstance(module, _TARGETS)}
    matched = {name: [key for key in modules if key == name or key.endswith(f".{name}")] for name in names}
    wrong = [name for name, keys in matched.items() if not keys]
    if wrong or not names:
        known = sorted({key.rpartition(".")[2] for key in modules})
        listed = "; ".join(f"'{name}' ({nearest(name, known)})" for name in wrong) or "none is given"
        raise DataError(f"target_modules: {listed}: each name must be that of a linear layer or embedding of the base")
    tied = [name for name, keys in matched.items() if any(_is_tied(model, modules[key]) for key in keys)]
    if tied:
        raise DataError(
            f"target_modules: '{tied[0]}' shares its weight with {_partner(model, modules[matched[tied[0]][0]])} (the base's "
            "embedding and head are tied): an adapter would change one use of it and not the other, and could not be merged. "
            "Leave it out"
        )
    return [modules[key] for keys in matched.values() for key in keys]


def _is_tied(model: PreTrainedModel, module: nn.Module) -> bool:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    return head is not None and embedding.weight is head.weight and module in (embedding, head)


def _partner(model: PreTrainedModel, module: nn.Module) -> str:
    return "the output head" if module is model.get_input_embeddings() else "the embedding"


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            return [folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
        except (ValueError, KeyError):
            raise DataError(f"{index} cannot be read") from None
    single = folder / "model.safetensors"
    if not single.exists():
        raise DataError(f"'{folder}' holds no model.safetensors; give the folder of a model saved with save_pretrained")
    return [single]


def _stored_tensors(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    where = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            where.update(dict.fromkeys(file.keys(), path))
    opened = {path: safe_open(path, framework="pt") for path in files}
    for name in sorted(where):
        yield name, opened[where[name]].get_tensor(name)


def _sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
