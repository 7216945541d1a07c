"""One process of a stage: `python -m pipeline.rank PARTIAL_DIRECTORY`; started by the worker, never by hand.

It holds a shared lock on the directory as long as it lives, dies with its parent, checks its place in the world before any
write, runs the stage, and leaves `.error.json` when it fails.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from pipeline.artifact import Artifact
from pipeline.context import Context
from pipeline.durable import write_json
from pipeline.errors import GroundupError, StageError
from pipeline.job import Job
from pipeline.launch import threads_per_process
from pipeline.process import ProcessId, die_with_parent, is_alive, process_id
from pipeline.store import hold_shared

JOB = ".job.json"
ERROR = ".error.json"
VERSIONS = ".versions.json"
"""Versions of the libraries, the last that the main process writes; with it the artifact is whole."""
WORKER = "GROUNDUP_WORKER"
"""Environment variable with pid and start time of the worker that started this process."""

_HINTS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the quota is used up; free some space",
    errno.EFBIG: "a file became larger than this system allows",
    errno.EROFS: "the store is read-only; choose another with --store",
    errno.EACCES: "no permission to write; choose another store with --store",
}
_LIBRARIES = ("torch", "transformers", "datasets", "tokenizers", "accelerate", "peft", "diffusers", "evaluate", "numpy")


def main(partial: Path) -> int:
    """Run this process's share of the stage; return its exit code."""
    die_with_parent()
    hold_shared(partial)
    job = Job.model_validate_json((partial / JOB).read_text(encoding="utf-8"))
    index = int(os.environ.get("RANK", "0"))
    write_json(partial / f".rank-{index}.json", process_id())
    worker = ProcessId(*map(int, os.environ[WORKER].split(":")))
    if not is_alive(worker):
        return 1  # it died before the kernel knew that we should die with it; another worker may write here by now
    try:
        _run(job, partial, index)
    except GroundupError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return _fail(partial, index, str(error), error.exit_code)
    except OSError as error:
        traceback.print_exc()
        return _fail(partial, index, describe_os_error(error), StageError.exit_code)
    except BaseException as error:
        traceback.print_exc()
        return _fail(partial, index, f"{type(error).__name__}: {error}{_advice(job, error)}", StageError.exit_code)
    return 0


def _run(job: Job, partial: Path, index: int) -> None:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != job.launch.processes:
        raise StageError(f"launch.processes is {job.launch.processes}, but {world} were started; check launch.accelerate_config")
    context = Context(
        partial,
        {role: [Artifact.open(path) for path in paths] for role, paths in job.inputs.items()},
        process_index=index,
        num_processes=world,
        threads=threads_per_process(job.launch, job.cores),
        offline=job.offline,
        deterministic=job.launch.deterministic,
        facts={"sources": job.identity.get("sources", [])},
    )
    context.listen_for_stop()
    context.phase("loading libraries")
    config = importlib.import_module(f"{job.stage}.config").Config.parse(job.config, where=job.node)
    importlib.import_module(f"{job.stage}.run").run(config, context)
    context.finish()
    if context.is_main:
        write_json(partial / VERSIONS, _versions())


def _advice(job: Job, error: BaseException) -> str:
    """Return what our own launch setting has to do with an error of torch, if anything."""
    if job.launch.deterministic and "deterministic" in str(error):
        return f". Set stages.{job.node}.launch.deterministic=false: it computes what a GPU has no deterministic form of"
    return ""


def describe_os_error(error: OSError) -> str:
    """Return what a user can do about an error of the system."""
    where = f" ({error.filename})" if error.filename else ""
    hint = _HINTS.get(error.errno or 0, f"{error.strerror or error}; correct that")
    return f"{hint}{where}, then run the same command again: it goes on from the last saved state"


def _fail(partial: Path, index: int, message: str, exit_code: int) -> int:
    try:
        (partial / f"{ERROR}.{index}").write_text(json.dumps({"message": message, "exit_code": exit_code}))
    except OSError:
        print("the error could not be written beside the log", file=sys.stderr)
    return exit_code


def _versions() -> dict[str, str]:
    """Versions of the libraries that this process really used."""
    used = {name: str(getattr(sys.modules[name], "__version__", "?")) for name in _LIBRARIES if name in sys.modules}
    return {"python": sys.version.split()[0]} | used


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # libraries' exit handlers (thread pools, process groups) may hang long after the work is done
