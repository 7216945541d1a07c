"""`python -m stages.release.space FOLDER --repo owner/space --model-repo owner/model`: an app for a published model.

Assembled, started here, shown; with --push handed on to the upload. Without it nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pipeline.errors import GroundupError, RecipeError
from stages.common.release.sending import check_before, send


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        if code := check_before(options, None, os.environ):
            return code
        folder, wrong = _make(options)
    except GroundupError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    if wrong:
        sys.stdout.write("".join(f"  refused  {line}\n" for line in wrong))
        sys.stdout.write(f"refused  {len(wrong)} problem(s), all listed above; nothing left this machine\n")
        return 1
    if not options.push:
        sys.stdout.write("dry run  nothing left this machine; upload with --push\n")
        return 0
    return send(folder, options, None, os.environ)


def _make(options: argparse.Namespace) -> tuple[Path, list[str]]:
    """Assemble, show, check and try the Space; return its folder and all that is wrong. What is wrong is not started."""
    # Heavy imports come after the arguments were read, so that --help is quick.
    from pipeline.artifact import Artifact
    from stages.common.release.fetch import resolve_commit
    from stages.common.release.names import check_repo
    from stages.release.space.assembly import assemble
    from stages.release.space.checks import problems
    from stages.release.space.kinds import app_for
    from stages.release.space.trial import try_out

    for flag, repo in (("--repo", options.repo), ("--model-repo", options.model_repo.partition("@")[0])):
        check_repo(repo, flag)
    artifact = Artifact.open(options.folder.resolve())
    app = app_for(artifact)
    model_repo, _, revision = options.model_repo.partition("@")
    commit = resolve_commit(model_repo, revision or "main", offline=options.offline)
    _check_model(model_repo, commit, artifact.fingerprint, offline=options.offline)
    folder: Path = options.output or artifact.path.parents[2] / "published" / options.repo.replace("/", "--")
    folder.parent.mkdir(parents=True, exist_ok=True)
    assemble(artifact, app, repo=options.repo, model_repo=model_repo, revision=commit, destination=folder.absolute())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sys.stdout.write(f"{path.stat().st_size:>10,}  {path.relative_to(folder)}\n")
    sys.stdout.write(f"folder   {folder}\nmodel    hub:{model_repo}@{commit}\n")
    sys.stdout.flush()
    if wrong := problems(folder, options.repo):
        return folder, wrong
    sys.stdout.write("checks   complete, with a licence; no secret, mail address or path in it\n")
    trial = try_out(folder.absolute(), app.model, options.python)
    if trial.missing and options.push:
        raise RecipeError(f"--push: the Space was not tried ({trial.missing})")
    sys.stdout.write(f"tried    {trial.shown or 'no: ' + trial.missing}\n")
    return folder, []


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
