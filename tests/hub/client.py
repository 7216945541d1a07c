"""Run a piece of code against the stand-in in a process of its own, with the libraries as they are."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

from tests.hub.server import HubServer

_BEFORE = "import json, sys\nfrom huggingface_hub import CommitOperationAdd, HfApi\napi = HfApi()\n"


def client(hub: HubServer, code: str, *arguments: object, token: str | None = "hf_ada", xet: bool = False) -> Any:
    """Run `code` (it finds `api`, `CommitOperationAdd`, and `sys.argv[1:]`) and return what it put into `result`."""
    program = f"{_BEFORE}{textwrap.dedent(code)}\nprint('\\n' + json.dumps(result))"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=hub.environment(token, xet=xet),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
