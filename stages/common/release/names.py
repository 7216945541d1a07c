"""Names of repositories, checked before anything else is done with them."""

from __future__ import annotations

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from pipeline.errors import RecipeError


def check_repo(repo: str, flag: str) -> None:
    """Check the name of a repository as the Hub's own client does, with its owner.

    Raises:
        RecipeError: it is not of the form owner/name, or the Hub would refuse it.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise RecipeError(f"{flag} {repo!r}: no name of a repository ({error})") from None
    if "/" not in repo:
        raise RecipeError(f"{flag} {repo!r}: the owner is missing; write {flag} OWNER/{repo}")
