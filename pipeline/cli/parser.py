"""Commands and flags (argparse: `--help` must answer at once)."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import __version__

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[
        argparse.ArgumentParser
    ]  # the type of `add_subparsers`, which argparse does not export


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; `.command` of the result runs it. Overrides may stand anywhere among the flags."""
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest and not (hasattr(parsed, "overrides") and all("=" in word and not word.startswith("-") for word in rest)):
        parser.error(f"unknown argument: {rest[0]}; `groundup {arguments[0]} --help` lists what there is")
    if rest:
        parsed.overrides += rest
    return parsed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="groundup", description="Train generative models from the ground up, every step checked."
    )
    parser.add_argument("--version", action="version", version=f"groundup {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_plan_and_run(commands)
    _add_watching(commands)
    _add_artifacts(commands)
    _add_release(commands)
    _add_pull(commands)
    _add_listings(commands)
    return parser


def _add_plan_and_run(commands: _Commands) -> None:
    for name, text in (("plan", "what a run would do, and why"), ("run", "run a recipe; finished stages are not run again")):
        command = _command(commands, name, text, f"pipeline.cli.run:{name}")
        _recipe(command)
        command.add_argument("overrides", nargs="*", metavar="stages.NAME.KEY=VALUE", help="change a value of the recipe")
        command.add_argument("--only", metavar="STAGE", help="this stage, and what it lacks upstream")
        command.add_argument("--keep", metavar="STAGE", action="append", default=[], help="keep its artifact though code changed")
        command.add_argument("--force", metavar="STAGE", action="append", default=[], help="run again although nothing changed")
        command.add_argument("--offline", action="store_true", help="forbid the network")
        command.add_argument("--json", action="store_true", help="machine-readable output")
        _store(command)
        if name == "run":
            command.add_argument("--executor", default="local", help="where stages run (default: local)")
            command.add_argument("--jobs", type=_positive, default=1, help="stages at a time (default: 1; they share the cores)")


def _add_watching(commands: _Commands) -> None:
    status = _command(commands, "status", "what is running, done, failed; how long, how far", "pipeline.cli.watch:status")
    status.add_argument("recipe", nargs="?", type=path, help="a recipe; default: all that were run in this store")
    status.add_argument("--json", action="store_true", help="machine-readable output")
    logs = _command(commands, "logs", "what a stage printed", "pipeline.cli.watch:logs")
    _recipe(logs)
    logs.add_argument("stage", help="name of the stage in the recipe")
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing what is added")
    report = _command(commands, "report", "write the report of a recipe's last run", "pipeline.cli.reports:report")
    _recipe(report)
    for command in (status, logs, report):
        _store(command)


def _add_artifacts(commands: _Commands) -> None:
    show = _command(commands, "show", "record, metrics and inputs of an artifact", "pipeline.cli.artifacts:show")
    show.add_argument("artifact", help="a directory (runs/quickstart/pretrain) or the first digits of a fingerprint")
    diff = _command(commands, "diff", "what differs between two artifacts", "pipeline.cli.artifacts:diff")
    diff.add_argument("artifact", nargs=2, help="a directory or the first digits of a fingerprint")
    verify = _command(commands, "verify", "hash every file of every artifact and compare", "pipeline.cli.artifacts:verify")
    gc = _command(commands, "gc", "what no recipe's last run uses (shows; removes with --delete)", "pipeline.cli.artifacts:gc")
    gc.add_argument("--delete", action="store_true", help="remove it")
    chat = _command(commands, "chat", "talk to a model in the terminal", "pipeline.cli.artifacts:chat")
    chat.add_argument("artifact", help="a directory (runs/quickstart/finetune) or the first digits of a fingerprint")
    chat.add_argument("options", nargs=argparse.REMAINDER, help="passed on, such as --temperature 0.8")
    for command in (show, diff, verify, gc, chat):
        _store(command)
    for command in (show, diff):
        command.add_argument("--json", action="store_true", help="machine-readable output")


def _add_release(commands: _Commands) -> None:
    text = "assemble a repository for the Hub out of an artifact, and check it; it is uploaded with --push only"
    publish = _command(commands, "publish", text, "pipeline.cli.release:publish")
    publish.add_argument("artifact", help="a directory (runs/quickstart/finetune) or the first digits of a fingerprint")
    publish.add_argument("--repo", required=True, metavar="OWNER/NAME", help="repository on the Hub")
    publish.add_argument("--part", help="adapter, merged, model, tokenizer, data, extractors (default: the only one)")
    publish.add_argument("--base-repo", metavar="OWNER/NAME[@REVISION]", help="where the base of an adapter is published")
    publish.add_argument("--license", metavar="NAME", help="licence of your own data, where the recipe states none (such as mit)")
    publish.add_argument("--output", type=path, metavar="DIR", help="folder to assemble (default: published/ in the store)")
    publish.add_argument("--show-card", action="store_true", help="print the whole card")
    publish.add_argument("--offline", action="store_true", help="do not compare with what the repository holds now")
    publish.add_argument("--push", action="store_true", help="upload; without it nothing leaves this machine")
    seen_by = publish.add_mutually_exclusive_group()
    seen_by.add_argument("--private", action="store_true", help="only you can see a new repository (default)")
    seen_by.add_argument("--public", action="store_true", help="everybody can see a new repository")
    publish.add_argument("--revision", metavar="BRANCH", help="branch to write to (default: main)")
    publish.add_argument("--create-pr", action="store_true", help="propose the change as a pull request")
    publish.add_argument("--tag", metavar="TAG", help="name the new commit")
    publish.add_argument("--message", metavar="TEXT", help="message of the commit")
    publish.add_argument("--space", action="store_true", help="an app for the model instead of the model")
    publish.add_argument("--model-repo", metavar="OWNER/NAME[@REVISION]", help="with --space: where its model is published")
    publish.add_argument("--python", metavar="PROGRAM", help="with --space: interpreter with gradio, to try the app")
    _store(publish)


def _add_pull(commands: _Commands) -> None:
    pull = _command(
        commands,
        "pull",
        "fetch a model or data from the Hub, and check it; nothing of it is executed",
        "pipeline.cli.release:pull",
    )
    pull.add_argument(
        "repo",
        metavar="OWNER/NAME[@REVISION]",
        help="a repository; datasets/ before it for data; a branch, tag or commit after the @",
    )
    pull.add_argument("--output", type=path, metavar="DIR", help="new folder for it (default: pulled/OWNER--NAME-COMMIT)")
    pull.add_argument("--max-gib", metavar="GIB", help="refuse what is larger (default: 20)")


def _add_listings(commands: _Commands) -> None:
    _command(commands, "stages", "kinds of stages with their parameters, units and defaults", "pipeline.cli.listings:stages")
    _command(commands, "cards", "data cards with source and licence", "pipeline.cli.listings:cards")


def _command(commands: _Commands, name: str, text: str, target: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(command=_late(target))
    return command


def _late(target: str) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        module, _, function = target.partition(":")
        code: int = getattr(importlib.import_module(module), function)(arguments)
        return code

    return run


def _recipe(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", type=path, metavar="RECIPE", help="a recipe, such as configs/quickstart.yaml")


def _store(command: argparse.ArgumentParser) -> None:
    default = path(os.environ.get("GROUNDUP_STORE") or ".")
    command.add_argument("--store", type=path, default=default, metavar="DIR", help="holds artifacts/ and runs/ (default: here)")


def path(text: str) -> Path:
    """Read a path; a shell leaves the `~` of `--store=~/runs` alone."""
    return Path(text).expanduser()


def _positive(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number
