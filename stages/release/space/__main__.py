"""`python -m stages.release.space FOLDER --repo owner/space --model-repo owner/model`: an app for a published model.

Assembled, started here, shown; with --push handed on to the upload. Without it nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import GroundupError, RecipeError
from stages.common.release.endpoint import endpoint, is_offline
from stages.common.release.sending import check_before, send

if TYPE_CHECKING:
    from pipeline.artifact import Artifact


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit code."""
    options = _parser().parse_args(arguments)
    options.offline |= is_offline(os.environ) and not options.push
    try:
        endpoint(os.environ)
        _check_names(options)
        return _publish(options)
    except GroundupError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"{error.filename or 'publish --space'}: {error.strerror or error}; nothing left this machine\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _publish(options: argparse.Namespace) -> int:
    # Heavy imports come after the arguments were read, so that --help is quick.
    from pipeline.artifact import Artifact
    from stages.common.release.destination import alone, check_replaceable

    artifact = Artifact.open(options.folder.resolve())
    if code := check_before(options, artifact, os.environ):
        return code
    # A name of its own: a model and its Space may have the same on the Hub.
    shelf = artifact.path.parents[2] / "published"
    folder: Path = (options.output or shelf / f"spaces--{options.repo.replace('/', '--')}").absolute()
    check_replaceable(folder)  # before the lock is put beside it
    with alone(folder) as lock:
        if wrong := _make(options, artifact, folder):
            sys.stdout.write("".join(f"  refused  {line}\n" for line in wrong))
            sys.stdout.write(f"refused  {len(wrong)} problem(s), all listed above; nothing left this machine\n")
            return 1
        if not options.push:
            sys.stdout.write("dry run  nothing left this machine; upload with --push\n")
            return 0
        return send(folder, options, artifact, os.environ, lock=lock)


def _make(options: argparse.Namespace, artifact: Artifact, folder: Path) -> list[str]:
    """Assemble, show, check and try the Space; return all that is wrong. What is wrong is not started."""
    from stages.common.release.fetch import published_license, resolve_commit
    from stages.common.release.outcome import save_outcome
    from stages.release.space.assembly import assemble
    from stages.release.space.checks import problems
    from stages.release.space.kinds import app_for
    from stages.release.space.trial import try_out

    app = app_for(artifact)
    model_repo, _, revision = options.model_repo.partition("@")
    commit = resolve_commit(model_repo, revision or "main", offline=options.offline)
    _check_model(model_repo, commit, artifact.fingerprint, offline=options.offline)
    stated = published_license(model_repo, commit, offline=options.offline)
    names = {"repo": options.repo, "model_repo": model_repo, "revision": commit}
    assemble(artifact, app, **names, destination=folder, stated_license=stated)
    save_outcome(folder, options.repo, ["it was not checked and tried to the end"], [])
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sys.stdout.write(f"{path.stat().st_size:>10,}  {path.relative_to(folder)}\n")
    sys.stdout.write(f"folder   {folder}\nmodel    hub:{model_repo}@{commit}\n")
    sys.stdout.flush()
    if wrong := problems(folder, options.repo):
        save_outcome(folder, options.repo, wrong, [])
        return wrong
    sys.stdout.write("checks   complete, with a licence; no secret, mail address or path in it\n")
    trial = try_out(folder, app.model, options.python)
    if trial.missing and options.push:
        raise RecipeError(f"--push: the Space was not tried ({trial.missing})")
    sys.stdout.write(f"tried    {trial.shown or 'no: ' + trial.missing}\n")
    if not trial.missing:
        save_outcome(folder, options.repo, [], [trial.shown])
    return []


def _check_names(options: argparse.Namespace) -> None:
    """A name becomes part of a path, and a wrong one is known before anything is made."""
    from stages.common.release.names import check_repo

    for flag, repo in (("--repo", options.repo), ("--model-repo", options.model_repo.partition("@")[0])):
        check_repo(repo, flag)


def _check_model(repo: str, commit: str, fingerprint: str, *, offline: bool) -> None:
    """Refuse a model repository that holds another artifact; offline nobody can look."""
    from stages.common.release.fetch import published_artifact

    found = None if offline else published_artifact(repo, commit)
    if not offline and found != fingerprint:
        holds = f"artifact {found[:8]}" if found else "no model published by Groundup"
        raise RecipeError(f"--model-repo {repo} holds {holds} at {commit[:8]}, not {fingerprint[:8]}; publish this model first")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="groundup publish --space", description="Assemble and try a Gradio app for a model.")
    parser.add_argument("folder", type=Path, help="the artifact whose model was published")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the Space on the Hub")
    parser.add_argument("--model-repo", required=True, metavar="OWNER/NAME[@REVISION]", help="where the model is published")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to assemble (default: published/ in the store)")
    parser.add_argument("--python", default=sys.executable, help="interpreter with gradio, to try the app (default: this one)")
    parser.add_argument("--offline", action="store_true", help="take the commit from the Hub's cache, and do not look")
    parser.add_argument("--push", action="store_true", help="upload; without it nothing leaves this machine")
    parser.add_argument("--public", action="store_true", help="everybody can see a new Space (default: only you)")
    parser.add_argument("--message", metavar="TEXT", help="message of the commit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
