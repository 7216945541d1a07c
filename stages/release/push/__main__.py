"""`python -m stages.release.push FOLDER --repo OWNER/NAME`: compare an assembled repository with the Hub; `--push` sends it.

Without a folder it only checks what is known beforehand: names, flags, the token and what it may do.
The token comes from HF_TOKEN or from `hf auth login`, never from the command line. HF_ENDPOINT names another Hub.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import GroundupError, RecipeError
from stages.common.release.endpoint import endpoint
from stages.common.release.output import Redacting, redacted_output

if TYPE_CHECKING:
    from stages.release.push.hub import Hub

DEFAULT_TIMEOUT_SECONDS = 60.0
_NAME = re.compile(r"[A-Za-z0-9]([\w./-]*\w)?", re.ASCII)
"""Names that git takes for branches and tags, without the odd ones. Source: https://git-scm.com/docs/git-check-ref-format"""


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit code."""
    options = _parser().parse_args(arguments)
    with redacted_output() as output:
        try:
            _check(options)
            _run(options, output)
        except GroundupError as error:
            sys.stderr.write(f"{error}\n")
            return error.exit_code
        except OSError as error:  # of this machine: no space, no right to write; those of the Hub have become HubErrors
            sys.stderr.write(f"{error}; nothing is lost: put that right and run the same command again\n")
            return 1
        except KeyboardInterrupt:
            sys.stderr.write("stopped. Nothing is lost: run the same command again, it goes on where it stopped.\n")
            return 130
    return 0


def _run(options: argparse.Namespace, output: Redacting) -> None:
    # Heavier imports come after the arguments were read, so that --help is quick, and after the output is guarded.
    from huggingface_hub import get_token
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from stages.common.release.layout import Manifest
    from stages.common.release.names import check_repo
    from stages.release.push.hub import Hub, Target
    from stages.release.push.record import locked

    if not sys.stderr.isatty():
        disable_progress_bars()
    check_repo(options.repo, "--repo")
    token = _check_token(get_token(), options, output)
    if options.folder is None:
        _enter(Hub(Target(options.repo, "model", options.revision), timeout_seconds=options.timeout), token, options)
        return
    Manifest.load(options.folder)  # what nobody assembled gets no lock beside it
    # One push of a folder at a time: its downloads for the proof lie beside it. And no publish replaces what is being read.
    with locked(options.folder.absolute(), options.lock), tempfile.TemporaryDirectory(prefix="groundup-push-") as cache:
        _send(options, token, Path(cache))


def _send(options: argparse.Namespace, token: str | None, cache: Path) -> None:
    """Compare the folder with the Hub, and with --push send it."""
    from stages.common.release.outcome import check_outcome
    from stages.common.release.output import say
    from stages.release.push.comparison import Folder
    from stages.release.push.hub import Hub, Target
    from stages.release.push.publication import Wish, publish

    folder = Folder.open(options.folder)
    if options.push:
        check_outcome(options.folder)
    hub = Hub(Target(options.repo, folder.manifest.repo_type, options.revision), timeout_seconds=options.timeout)
    _enter(hub, token, options)
    what = f"{folder.manifest.produces} {folder.manifest.artifact[:8]} ({folder.manifest.part})"
    say(f"folder {options.folder}: {what}, {len(folder.files)} files")
    wish = Wish(
        push=options.push,
        public=options.public,
        create_pr=options.create_pr,
        tag=options.tag,
        message=options.message or f"Publish {what}",
        record=options.record,
    )
    publish(hub, folder, wish, cache)


def _check_token(token: str | None, options: argparse.Namespace, output: Redacting) -> str | None:
    """Hide the token from now on, and refuse to send without one."""
    if token is not None:
        output.hide(token)
    if token is not None and not (token.isascii() and token.isprintable()):
        raise RecipeError("HF_TOKEN: holds characters that no token has; copy it again")
    if token is None and options.push:
        raise RecipeError("--push: there is no token; set HF_TOKEN to one that may write, or log in with `hf auth login`")
    return token


def _enter(hub: Hub, token: str | None, options: argparse.Namespace) -> None:
    """Say who we are; what would only fail after a long upload is known before."""
    from stages.common.release.output import say
    from stages.release.push.record import read_entries

    if token is not None:
        hub.log_in()
        say(f"account {hub.place.account} ({hub.role} token) at {hub.place.endpoint}")
    if options.push:
        hub.check_may_write()
        if options.record is not None:
            read_entries(options.record)


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together."""
    endpoint(os.environ)
    if options.folder is None and not options.push:
        raise RecipeError("FOLDER is missing: say which assembled folder to compare")
    if options.create_pr and options.revision != "main":
        raise RecipeError(f"--create-pr offers a change to main; leave out --revision {options.revision}")
    if options.create_pr and options.tag:
        raise RecipeError(f"--tag {options.tag}: a pull request is not published yet; tag it after it was merged")
    if options.revision.startswith("refs/"):
        raise RecipeError(f"--revision {options.revision}: say the name of a branch; --create-pr makes a pull request")
    for flag, name in (("--revision", options.revision), ("--tag", options.tag)):
        if name is not None and not (_NAME.fullmatch(name) and ".." not in name and "//" not in name):
            raise RecipeError(f"{flag} {name!r}: no name for a branch or tag; take letters, digits, '.', '_', '-' and '/'")
    if options.timeout <= 0:
        raise RecipeError(f"--timeout {options.timeout:g}: seconds must be positive")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.release.push",
        description="Compare an assembled repository with the Hub, and send it.",
        epilog="The token comes from HF_TOKEN or `hf auth login`. Killed at any point, the same command goes on.",
    )
    parser.add_argument("folder", type=Path, nargs="?", help="what `groundup publish` assembled (none: check the token only)")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="repository on the Hub")
    parser.add_argument("--push", action="store_true", help="send it (without: show what would change)")
    parser.add_argument("--public", action="store_true", help="a new repository is public (default: private)")
    parser.add_argument("--revision", default="main", metavar="BRANCH", help="branch to publish on (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="offer it as a pull request")
    parser.add_argument("--tag", help="name the commit; an existing tag is never moved")
    parser.add_argument("--message", help="first line of the commit")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write down in this JSON file that it was published")
    parser.add_argument("--lock", type=int, help=argparse.SUPPRESS)  # of `groundup publish`, which holds it for us
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="longest wait for an answer (default: 60)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
