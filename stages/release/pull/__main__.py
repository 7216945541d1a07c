"""`python -m stages.release.pull owner/name[@revision]`: fetch a model from the Hub into a folder, and check all of it.

Nothing that comes is executed: the recipe in it is a text, its records are facts to compare.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pipeline.errors import GroundupError
from stages.common.release.endpoint import endpoint
from stages.common.release.output import Redacting, redacted_output


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit code."""
    options = _parser().parse_args(arguments)
    # Heavy imports come after the arguments were read, so that --help is quick. Bars need a terminal.
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with redacted_output() as output:
        try:
            endpoint(os.environ)
            words = _pull(options, output)
        except GroundupError as error:
            sys.stderr.write(f"{error}\n")
            return error.exit_code
        except OSError as error:  # of this machine: no space, no right to write; those of the Hub have become DataErrors
            sys.stderr.write(f"{error}; what came is kept: put that right and run the same command again\n")
            return 1
        except KeyboardInterrupt:
            sys.stderr.write("stopped; what came is kept, the same command goes on from it\n")
            return 130
        sys.stdout.write(words)
    return 0


def _pull(options: argparse.Namespace, output: Redacting) -> str:
    """Fetch and check it; return what to say."""
    from huggingface_hub import get_token

    from stages.release.pull.pulling import pull
    from stages.release.pull.words import describe

    if (token := get_token()) is not None:
        output.hide(token)
    return describe(pull(options.repo, output=options.output, max_bytes=int(options.max_gib * 2**30)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="groundup pull", description="Fetch a model or a data set from the Hub and check it.")
    parser.add_argument(
        "repo",
        metavar="OWNER/NAME[@REVISION]",
        help="a repository; datasets/ before it for data; a branch, tag or commit after the @",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="new folder for it (default: pulled/OWNER--NAME-COMMIT)")
    parser.add_argument("--max-gib", type=_positive, default=20.0, help="refuse what is larger, GiB (default: 20)")
    return parser


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
