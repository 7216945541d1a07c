"""Launch settings, and from them a command line and an environment: a pure function, so that it can be read and tested.

One process is plain `python -m` (Accelerator works without its launcher, which costs seconds). More go through `accelerate
launch`, always with an explicit config file and without inherited ACCELERATE_* variables: a user's default file must not
decide how we train. Measured: `--cpu --num_processes 2` runs ONE process without a word; `--multi_gpu --num_processes 2` on
a machine without GPU gives two over gloo, so that is what CPU ranks use, and every rank checks its world size.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_INHERITED = (
    "ACCELERATE_",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_",
    "TORCHELASTIC_",
    "TORCH_ELASTIC_",
    "FSDP_",
)
RANK, RANKS = "pipeline.rank", "pipeline.ranks"
"""Programs that run one process of a stage, and that start several."""
LAUNCH_CONFIG = ".accelerate.yaml"
"""File in the partial directory that `accelerate launch` reads; JSON is YAML."""


class Launch(BaseModel):
    """How a stage runs; nothing here changes what it computes, but for rounding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    processes: int = Field(1, ge=1, le=4096)
    """Number of processes (ranks); more than 1 only for stages whose processes share the work."""
    gpus: int = Field(0, ge=0, le=4096)
    """Number of GPUs that the stage gets: one for each process, or 0 to run on the CPU."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of each process; default: the cores shared out evenly."""
    deterministic: bool = False
    """On a GPU, take only algorithms that give the same bits each time (torch.use_deterministic_algorithms), some of them slower:
    a resumed training can then end with the bits of an uninterrupted one. A CPU with as many threads needs nothing for that."""
    accelerate_config: str | None = None
    """Accelerate's YAML file for more than one process (see configs/launch/); default: one that follows from the above."""
    heartbeat_timeout_seconds: float = Field(900.0, gt=0)
    """A process that gives no sign of life for so long is ended, in seconds."""
    grace_seconds: float = Field(60.0, gt=0)
    """Time to save the state after a request to stop, in seconds."""


@dataclass(frozen=True)
class Command:
    """What to start, with which environment, and the Accelerate configuration that must be written first (None: no file)."""

    argv: list[str]
    environment: dict[str, str]
    accelerate_config: str | None


def command_for(
    launch: Launch,
    partial: Path,
    *,
    gpu_ids: list[str],
    cores: int,
    environment: Mapping[str, str],
) -> Command:
    """Return how to start the ranks of one stage.

    Args:
        launch: the stage's launch settings.
        partial: the stage's partial directory, the one argument of every rank.
        gpu_ids: GPUs that it may see; none means the CPU.
        cores: CPU cores that it may use.
        environment: the environment to derive from.
    """
    clean = {key: value for key, value in environment.items() if not key.startswith(_INHERITED)}
    threads = str(threads_per_process(launch, cores))
    clean |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
    clean |= {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "true"}
    clean["CUDA_VISIBLE_DEVICES"] = ",".join(gpu_ids)
    if launch.deterministic:  # cuBLAS reads it when it is first used; ":4096:8" is NVIDIA's and torch's own advice
        clean["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    clean["PYTHONPATH"] = os.pathsep.join(filter(None, [str(project_root()), os.getcwd(), environment.get("PYTHONPATH", "")]))
    if launch.processes == 1:
        return Command([sys.executable, "-m", RANK, str(partial)], clean, None)
    argv = [sys.executable, "-m", RANKS, "--config_file", str(partial / LAUNCH_CONFIG)]
    # Torch's agent kills ranks 30 s after a request to stop unless told otherwise, whatever they are saving.
    clean["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(math.ceil(launch.grace_seconds))
    argv += ["--num_processes", str(launch.processes), "--main_process_port", "0", "--module", RANK, str(partial)]
    return Command(argv, clean, accelerate_config(launch))


def threads_per_process(launch: Launch, cores: int) -> int:
    """Return the CPU threads of each process: as set, or the cores shared out evenly."""
    return launch.threads or max(1, cores // launch.processes)


def accelerate_config(launch: Launch) -> str:
    """Return the text of Accelerate's config file: the user's own, or one that follows from the launch settings."""
    if launch.accelerate_config:
        return Path(launch.accelerate_config).read_text(encoding="utf-8")
    settings = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",
        "num_machines": 1,
        "machine_rank": 0,
        "num_processes": launch.processes,
        "mixed_precision": "no",
        "dynamo_config": {"dynamo_backend": "NO"},
        "use_cpu": False,
        "rdzv_backend": "static",
        "same_network": True,
    }
    return json.dumps(settings, indent=1)


def project_root() -> Path:
    """Return the folder that holds `pipeline/` and `stages/`."""
    return Path(__file__).resolve().parent.parent
