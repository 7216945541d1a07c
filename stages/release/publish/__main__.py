"""`python -m stages.release.publish FOLDER --repo owner/name`: assemble, check, show; with --push hand on to the upload.

Without --push nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifact import Artifact
from pipeline.errors import GroundupError
from stages.common.release.endpoint import endpoint, is_offline
from stages.common.release.sending import check_before, send

if TYPE_CHECKING:
    from stages.release.publish.assemble import Assembled

REACH_SECONDS = 3.0


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit code."""
    options = _parser().parse_args(arguments)
    environment = dict(os.environ)
    options.offline |= is_offline(environment) and not options.push
    os.environ["HF_HUB_OFFLINE"] = "1"  # read at import; none of ours asks the Hub for anything
    try:
        artifact = Artifact.open(options.folder.resolve())
        endpoint(environment)
        _check_names(options)
        if code := check_before(options, artifact, environment):
            return code
        return _publish(artifact, options, environment)
    except GroundupError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"{error.filename or 'publish'}: {error.strerror or error}; nothing left this machine\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _check_names(options: argparse.Namespace) -> None:
    """A name becomes part of a path, and a wrong one is known before anything is made."""
    from stages.common.release.names import check_repo

    check_repo(options.repo, "--repo")
    if options.base_repo is not None:
        check_repo(options.base_repo.partition("@")[0], "--base-repo")


def _publish(artifact: Artifact, options: argparse.Namespace, environment: dict[str, str]) -> int:
    # Heavy imports come after the arguments were read and judged, so that --help and a refusal are quick.
    from datasets.utils.logging import disable_progress_bar
    from transformers.utils import logging

    from stages.common.release.destination import alone
    from stages.release.publish.assemble import assemble, check_destination

    logging.disable_progress_bar()
    disable_progress_bar()
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    destination = _destination(options, artifact)
    check_destination(destination, artifact)  # before the lock is put beside it
    with alone(destination) as lock:
        assembled = assemble(
            artifact,
            options.part,
            options.repo,
            destination,
            base_repo=options.base_repo,
            stated_license=options.license,
        )
        return _hand_on(assembled, options, environment, lock) if _check(assembled, options) else 1


def _destination(options: argparse.Namespace, artifact: Artifact) -> Path:
    """Return the folder to assemble: the store, which holds artifacts/<stage>/<digits>, has a shelf for what is published."""
    folder: Path = options.output or (artifact.path / "../../..").resolve() / "published" / options.repo.replace("/", "--")
    return folder.absolute()


def _check(assembled: Assembled, options: argparse.Namespace) -> bool:
    """Show what was assembled and what the checks found; say whether it may leave."""
    from stages.common.release.outcome import save_outcome
    from stages.common.release.private import told_by
    from stages.common.release.probe import PROBE
    from stages.release.publish.checks import problems
    from stages.release.publish.clean_load import Evidence, prove
    from stages.release.publish.probe_rows import with_probe
    from stages.release.publish.shown import show_folder, show_outcome

    wrong = problems(assembled)
    # Nothing that may be a program is loaded.
    evidence = Evidence() if wrong else prove(assembled)
    wrong += evidence.problems
    if evidence.probe is not None and not wrong:
        assembled = with_probe(assembled, evidence.probe)
        wrong += told_by(assembled.folder / PROBE, PROBE, assembled.repo)  # it is not there when all else is searched
    show_folder(assembled, sys.stdout, whole_card=options.show_card)
    show_outcome(wrong, evidence, sys.stdout)
    noted = save_outcome(assembled.folder, assembled.repo, wrong, evidence.shown)
    sys.stdout.write(f"\nfolder   {assembled.folder}\nchecks   {noted}\n")
    if wrong:
        left = "" if evidence.shown or evidence.problems else "; it is loaded in a clean process once they are gone"
        sys.stdout.write(f"refused  {len(wrong)} problem(s), all listed above{left}; nothing left this machine\n")
    return not wrong


def _hand_on(assembled: Assembled, options: argparse.Namespace, environment: dict[str, str], lock: int) -> int:
    """Start the upload, or without --push its comparison with what the repository holds now."""
    if not options.push and (options.offline or not _reachable()):
        why = "the network was forbidden" if options.offline else "the Hub cannot be reached"
        left_out = f"the comparison with {assembled.repo} was left out ({why})"
        sys.stdout.write(f"dry run  nothing left this machine; {left_out}; upload with --push\n")
        return 0
    return send(assembled.folder, options, assembled.lineage.artifact, environment, lock=lock)


def _reachable() -> bool:
    """Ask whether anything answers where the Hub should be; behind a proxy only a real request could tell."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        with socket.create_connection(endpoint(os.environ), REACH_SECONDS):
            return True
    except OSError:
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.release.publish", description="Assemble and check what is published; upload it with --push."
    )
    parser.add_argument("folder", type=Path, help="an artifact, such as runs/quickstart/finetune")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="repository on the Hub")
    parser.add_argument("--part", help="adapter, merged, model, tokenizer, data, extractors (default: the only one)")
    parser.add_argument("--base-repo", metavar="OWNER/NAME[@REVISION]", help="where the base of an adapter is published")
    parser.add_argument("--license", metavar="NAME", help="licence of your own data, where the recipe states none (e.g. mit)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to assemble (default: published/ in the store)")
    parser.add_argument("--show-card", action="store_true", help="print the whole card")
    parser.add_argument("--offline", action="store_true", help="do not compare with what the repository holds")
    parser.add_argument("--push", action="store_true", help="upload; without it nothing leaves this machine")
    seen_by = parser.add_mutually_exclusive_group()
    seen_by.add_argument("--private", action="store_true", help="only you can see a new repository (default)")
    seen_by.add_argument("--public", action="store_true", help="everybody can see a new repository")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to write to (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="propose the change as a pull request")
    parser.add_argument("--tag", metavar="TAG", help="name the new commit")
    parser.add_argument("--message", metavar="TEXT", help="message of the commit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
