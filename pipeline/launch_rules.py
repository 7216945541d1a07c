"""What launch settings must keep to, checked when a graph is built: a mistake here is told before anything runs."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import StageConfig
from pipeline.errors import RecipeError
from pipeline.launch import Launch
from pipeline.strict_yaml import load_yaml

_NOT_OURS = {
    "DEEPSPEED": "stages save and resume whole tensors, which DeepSpeed shares out in its own way",
    "MEGATRON_LM": "stages train transformers' models, which Megatron-LM replaces",
}
"""Values of `distributed_type` that Accelerate takes and no stage can train with, and why."""


def check_launch(launch: Launch, kind: type[StageConfig], stage: str, where: str) -> None:
    """Refuse launch settings that a stage cannot run with.

    Args:
        launch: the settings.
        kind: the stage's Config, which says whether several processes share its work.
        stage: the stage's dotted name.
        where: opens the message.

    Raises:
        RecipeError: names key, value, rule and what to do.
    """
    if launch.processes > 1 and not kind.shares_work:
        raise RecipeError(
            f"{where}: launch.processes is {launch.processes}, but {stage} does all its work in one process; leave "
            f"launch.processes out (a stage whose processes share the work says `shares_work = True` in its Config)"
        )
    if launch.gpus not in (0, launch.processes):
        raise RecipeError(
            f"{where}: launch.gpus is {launch.gpus} and launch.processes is {launch.processes}, but each process uses one GPU; "
            f"set launch.gpus to {launch.processes}, or to 0 for the CPU" + _more_processes(launch, kind)
        )
    if launch.accelerate_config is not None:
        _check_file(launch.accelerate_config, launch.processes, where)


def _more_processes(launch: Launch, kind: type[StageConfig]) -> str:
    return f", or launch.processes to {launch.gpus}" if kind.shares_work else ""


def _check_file(name: str, processes: int, where: str) -> None:
    """Refuse a file that Accelerate would not get, cannot read, or that asks for what stages do not do."""
    here = f"{where}: launch.accelerate_config is '{name}'"
    if processes == 1:
        raise RecipeError(
            f"{here}, but launch.processes is 1: one process runs without Accelerate's launcher, so nothing of the file would "
            f"count; set launch.processes, or launch.accelerate_config to null"
        )
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read as text ({error})"
        raise RecipeError(f"{here}: {reason}; name one such as configs/launch/ddp_8gpu.yaml, from where you run") from None
    try:
        values = load_yaml(text, name=name).values
    except RecipeError as error:
        raise RecipeError(f"{where}: launch.accelerate_config: {error}") from None
    kind = str(values.get("distributed_type")).upper()
    if kind in _NOT_OURS:
        raise RecipeError(
            f"{here}, with distributed_type: {kind}: {_NOT_OURS[kind]}; use MULTI_GPU, or FSDP where a stage shards"
        )
    dynamo = values.get("dynamo_config")
    settings = dynamo if isinstance(dynamo, dict) else {}
    backend = settings.get("dynamo_backend", settings.get("backend", values.get("dynamo_backend")))
    if str(backend or "NO").upper() != "NO":
        raise RecipeError(
            f"{here}, with dynamo_backend: {backend}: a stage decides itself whether it compiles its model, and notes that in "
            f"its artifact; leave dynamo_config out"
        )
