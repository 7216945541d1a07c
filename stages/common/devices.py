"""What the machine can do: the Accelerator, numbers of processes and threads, dtype, compilation, speed and memory.

Whatever is probed here is decided once in the main process, kept in `resolved.json` and reused on resume.
"""

from __future__ import annotations

import os
import re
import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import nn

from pipeline.contract import Context
from pipeline.errors import StageError
from stages.common import sharding

DtypeName = Literal["float32", "bfloat16"]

PEAK_FLOPS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12,
    "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "RTX 4090": 165e12,
}  # fmt: skip
"""Dense bfloat16 peak of GPUs by words of their name, the first that fits, FLOP/s, from NVIDIA's data sheets (no sparsity)."""
PROCESS_GROUP_TIMEOUT = timedelta(days=7)
"""How long a process waits for another. The libraries' own 10 to 30 minutes would end a stage whose main process measures for
longer; a process that is really gone is noticed by the engine, from its silence."""
_BEAT_SECONDS = 1.0


def make_accelerator(context: Context, *, can_shard: bool = False) -> Accelerator:
    """Return the Accelerator of this process: a GPU if there is one, else CPU (gloo between several processes).

    Args:
        context: the stage's context.
        can_shard: whether the stage's loop shards the model when Accelerate's file says so (`sharding`).

    Raises:
        StageError: Accelerate sees another number of processes than the engine planned. Without this check,
            `accelerate launch --cpu --num_processes 2` trains one process in silence. Or the file asks for FSDP, and the
            stage does not do it.
    """
    if not can_shard and sharding.is_asked_for():
        raise StageError(
            "launch.accelerate_config says distributed_type: FSDP, but this stage trains data-parallel only; "
            "give it a file with MULTI_GPU, or none"
        )
    if can_shard and sharding.is_asked_for():
        sharding.check_settings()
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESS_GROUP_TIMEOUT)],
    )
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if not accelerator.num_processes == world_size == context.num_processes:
        raise StageError(
            f"Accelerate runs {accelerator.num_processes} processes, WORLD_SIZE is {world_size}, the plan says "
            f"{context.num_processes}; nothing was written. Check `launch:` in the recipe"
        )
    if accelerator.process_index != context.process_index:
        raise StageError(f"process {context.process_index} is number {accelerator.process_index} for Accelerate; check `launch:`")
    torch.backends.cudnn.allow_tf32 = False  # or float32 convolutions on a GPU keep 10 bits of 23; matrix products keep all
    if context.deterministic:
        _use_deterministic_algorithms()
    return accelerator


def _use_deterministic_algorithms() -> None:
    """Let torch take deterministic algorithms only, in attention too, and refuse what has none."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it finds reads of unset memory, at the price of a write


def resolve(context: Context, accelerator: Accelerator, key: str, decide: Callable[[], Any]) -> Any:
    """Return what the main process decided for `key`; every process must call this."""
    if context.is_main:
        context.resolve(key, decide)
    wait_for_everyone(context, accelerator)
    return context.resolved()[key]


def wait_for_everyone(context: Context, accelerator: Accelerator) -> None:
    """Wait until every process is here, and give signs of life meanwhile: another may have hours of work to do alone.

    A thread gives them, because the barrier does not return to Python. Whether the one that works is alive is told by its own.
    """
    if accelerator.num_processes == 1:
        return
    arrived = threading.Event()

    def beat() -> None:
        while not arrived.wait(_BEAT_SECONDS):
            context.beat()

    thread = threading.Thread(target=beat, name="beats while waiting", daemon=True)
    thread.start()
    try:
        accelerator.wait_for_everyone()
    finally:
        arrived.set()
        thread.join()


@contextmanager
def signs_of_life(context: Context, networks: Iterable[nn.Module]) -> Iterator[None]:
    """Give signs of life while other code calls layers of `networks`: from the calls, so that what hangs falls silent.

    Raises:
        Interrupted: a stop was asked for; the caller has saved the state.
    """
    last = 0.0

    def called(*_: object) -> None:
        nonlocal last
        if time.monotonic() - last > _BEAT_SECONDS:
            last = time.monotonic()
            context.beat()
            context.check_stop()

    hooks = [layer.register_forward_pre_hook(called) for network in networks for layer in network.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def set_up_threads(context: Context, accelerator: Accelerator) -> int:
    """Use the number of CPU threads that was resolved first (sums depend on it); flush denormals, which slow CPUs."""
    threads = int(resolve(context, accelerator, "threads", lambda: context.threads))
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    return threads


def fastest_dtype(device: torch.device) -> DtypeName:
    """Return the faster of float32 and bfloat16 for large matrix products, measured for under a second.

    For a GPU, which is busy with these; `precision` tries the training itself.
    """
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "float32"
    exact, half = (matmul_flops(device, dtype, seconds=0.3) for dtype in (torch.float32, torch.bfloat16))
    return "bfloat16" if half > 1.1 * exact else "float32"


def matmul_flops(device: torch.device, dtype: torch.dtype, *, size: int | None = None, seconds: float = 0.5) -> float:
    """Return the best speed of a square matrix product seen within `seconds`, FLOP/s (2·size³ per product)."""
    size = size or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        _wait(device)
        start = time.perf_counter()
        torch.mm(a, b)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def known_peak(device: torch.device) -> float | None:
    """Return the published bfloat16 peak of a GPU, FLOP/s; None for a CPU or an unknown GPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for words, peak in PEAK_FLOPS.items() if re.search(rf"\b{words}\b", name)), None)


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak memory of this process so far, GiB: allocated on the GPU, or resident in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def seconds_since_start() -> float:
    """Return the age of this process in seconds, so that a budget includes the time of imports (Linux)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def why_not_compile(device: torch.device) -> str | None:
    """Return why `torch.compile` does not work here, None when it does: a small function is compiled and run."""
    try:
        compiled = torch.compile(lambda x: torch.nn.functional.silu(x) * 2)
        compiled(torch.ones(64, device=device))
    except Exception as error:  # the backend may fail in any way: no C++ compiler, no Triton, an unknown GPU
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return None


def decide_compile(wanted: bool | Literal["auto"], device: torch.device) -> tuple[bool, str]:
    """Return whether to compile, and the reason in words.

    On CPU compiling was measured not to pay at the sizes that a CPU can train, so "auto" means GPU only.
    """
    if wanted == "auto" and device.type != "cuda":
        return False, "off: on this CPU it does not pay"
    if not wanted:
        return False, "off: as configured"
    reason = why_not_compile(device)
    return (True, "on") if reason is None else (False, f"off: torch.compile failed here ({reason})")


def compile_blocks(module: nn.Module) -> None:
    """Compile every block of the transformer in `module`, in place; names of parameters stay as they are.

    One block is compiled and serves for all, which takes a fraction of the time of a whole model. What lies between blocks
    stays eager: the gathering of shards, the gradient buckets of DDP, and the loss, whose loop over chunks would be unrolled.
    """
    for block in sharding.blocks_of(module):
        block.compile()


def uncompiled() -> AbstractContextManager[None]:
    """Call compiled blocks as they are written: for all that is not a training step.

    Shapes of an evaluation and the cache of sampling, which every layer has for itself, would use up the number of variants
    that torch compiles of one function (torch._dynamo.config.recompile_limit), after which training steps run eagerly.
    """
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
