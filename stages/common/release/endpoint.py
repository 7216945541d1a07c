"""The address of the Hub, judged before the Hub's own client is imported: it reads the address at import."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from pipeline.errors import RecipeError

HUB = "https://huggingface.co"
_YES = frozenset({"1", "on", "yes", "true"})
"""What the client takes for yes. Source: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables"""


def endpoint(environment: Mapping[str, str]) -> tuple[str, int]:
    """Return host and port of the Hub that `environment` names.

    Raises:
        RecipeError: HF_ENDPOINT is no address.
    """
    text = environment.get("HF_ENDPOINT") or HUB
    try:
        parts = urlsplit(text)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise RecipeError(f"HF_ENDPOINT {text!r}: no address of a Hub ({error}); unset it to take {HUB}") from None


def is_offline(environment: Mapping[str, str]) -> bool:
    """Whether the Hub's client is told to send nothing."""
    return environment.get("HF_HUB_OFFLINE", "").lower() in _YES
