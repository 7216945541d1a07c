"""`python -m stages.text.tokenizer`: one stage alone, its config keys as flags, its inputs by directory."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys

from pydantic import ValidationError

from pipeline.artifact import Artifact
from pipeline.cli.listings import default_words, field_sentences
from pipeline.cli.parser import path
from pipeline.config import StageConfig
from pipeline.errors import Damaged, GroundupError, RecipeError, StoreError
from pipeline.executors import make_executor
from pipeline.executors.local import visible_gpus
from pipeline.fingerprint import fingerprint_of, identity_of
from pipeline.graph import Node, add_working_directory, config_class
from pipeline.job import Job
from pipeline.launch import Launch
from pipeline.launch_rules import check_launch
from pipeline.plan import Planned
from pipeline.process import process_id
from pipeline.progress import Display, tail
from pipeline.provenance import checkout_commit
from pipeline.runner import run_job
from pipeline.store import Store
from pipeline.strict_yaml import parse_scalar


def main(package: str) -> None:
    """Run stage `package` with the command line's values; the result is an artifact like any other."""
    try:
        code = _run(package, sys.argv[1:])
    except GroundupError as error:
        print(f"{package}: {str(error).removeprefix(f'{package}: ')}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)


def _run(package: str, arguments: list[str]) -> int:
    add_working_directory()
    kind = config_class(package, package)
    parsed = _parser(package, kind).parse_args([_dashed(word, kind) for word in arguments])
    values = {name: parse_scalar(text) for name in kind.model_fields if (text := getattr(parsed, name)) is not None}
    config = kind.parse(values, where=package)
    launch = _launch(parsed.processes, parsed.gpus, package)
    check_launch(launch, kind, package, package)
    inputs = {
        role: [Artifact.open(path(folder).resolve()) for folder in getattr(parsed, f"needs_{role}") or []] for role in kind.inputs
    }
    _check_inputs(package, kind, inputs)
    store = Store(parsed.store)
    node = Node(package.rpartition(".")[2], package, config, {}, launch)
    fingerprints = {role: [a.fingerprint for a in found] for role, found in inputs.items() if found}
    identity = identity_of(node, fingerprints, store.hashes, offline=parsed.offline)
    fingerprint = fingerprint_of(identity)
    with contextlib.suppress(Damaged):  # then it is made anew
        if done := store.find(package, fingerprint):
            print(done.path)
            return 0
    job = Job(
        recipe="",
        node=node.name,
        stage=package,
        produces=kind.produces,
        fingerprint=fingerprint,
        identity=identity,
        config=config.model_dump(mode="json"),
        inputs={role: [a.path for a in found] for role, found in inputs.items() if found},
        launch=node.launch,
        store=parsed.store.resolve(),
        offline=parsed.offline,
        force=False,
        cores=len(os.sched_getaffinity(0)),
        driver=process_id(),
        commit=checkout_commit(),
    )
    return _submit(job, Planned(node, identity, fingerprint, "run"), store)


def _launch(processes: int, gpus: int, package: str) -> Launch:
    try:
        launch = Launch(processes=processes, gpus=gpus)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        flag, rule, default = first["loc"][0], str(first["msg"]), Launch.model_fields[str(first["loc"][0])].default
        raise RecipeError(
            f"{package}: --{flag} is {first['input']}: {rule[:1].lower()}{rule[1:]}; {default} is the default"
        ) from None
    if gpus and gpus > (found := len(visible_gpus())):
        raise RecipeError(f"{package}: --gpus is {gpus}, but this machine has {found}; leave it out to run on the CPU")
    return launch


def _submit(job: Job, planned: Planned, store: Store) -> int:
    display = Display({job.node: planned}, store)
    try:
        state = run_job(job, make_executor("local", jobs=1), display)
    finally:
        display.close()
    place, outcome = store.place(job.stage, job.fingerprint), state.outcomes[job.node]
    if state.stopped_by and outcome.state == "interrupted":
        print(f"go on with:  {shlex.join([sys.executable, '-m', job.stage, *sys.argv[1:]])}", file=sys.stderr)
        return state.exit_code
    if outcome.state not in ("done", "cached"):
        for line in tail(place.partial / "log.txt", 15):
            print(f"  | {line}", file=sys.stderr)
        raise StoreError(outcome.message) if outcome.exit_code == 1 else RecipeError(outcome.message)
    print(place.final)
    return 0


def _parser(package: str, kind: type[StageConfig]) -> argparse.ArgumentParser:
    summary = " ".join((kind.__doc__ or "").split())
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=summary)
    sentences = field_sentences(kind)
    for role, wanted in kind.inputs.items():
        parser.add_argument(
            f"--needs.{role}",
            dest=f"needs_{role}",
            metavar="ARTIFACT",
            nargs="+" if wanted.many else 1,
            required=not wanted.optional,
            help=f"directory ({' or '.join(wanted.kinds)}): {wanted.help}",
        )
    for name in kind.model_fields:
        text = f"{sentences.get(name, '')} (default: {default_words(kind, name)})".strip().replace("%", "%%")
        parser.add_argument(_flag(name), dest=name, metavar="VALUE", help=text.replace("default: required", "required"))
    parser.add_argument(
        "--store", type=path, default=path(os.environ.get("GROUNDUP_STORE", ".")), help="holds artifacts/ (default: here)"
    )
    parser.add_argument("--processes", type=int, default=1, help="number of processes (default: 1)")
    parser.add_argument("--gpus", type=int, default=0, help="number of GPUs, one for each process (default: 0, the CPU)")
    parser.add_argument("--offline", action="store_true", help="forbid the network")
    return parser


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _dashed(word: str, kind: type[StageConfig]) -> str:
    """Return `--vocab-size` for `--vocab_size`: a key may be written as in a recipe."""
    flag, equals, value = word.partition("=")
    name = flag.removeprefix("--")
    return _flag(name) + equals + value if flag.startswith("--") and name in kind.model_fields else word


def _check_inputs(package: str, kind: type[StageConfig], inputs: dict[str, list[Artifact]]) -> None:
    for role, found in inputs.items():
        for artifact in found:
            if artifact.record.produces not in kind.inputs[role].kinds:
                wanted = " or ".join(kind.inputs[role].kinds)
                raise RecipeError(
                    f"{package}: --needs.{role} takes a {wanted}, but {artifact.path.name} is a {artifact.record.produces}"
                )
