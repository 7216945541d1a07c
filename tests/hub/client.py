"""The client side of the tests: the libraries as they are, in processes with `HF_ENDPOINT` set (it is read at import)."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub.server import HubServer

_BEFORE = "import json, sys\nfrom huggingface_hub import CommitOperationAdd, HfApi\napi = HfApi()\n"
_PULL = "import os, sys\nfrom stages.release.pull.__main__ import main\nos.chdir(sys.argv[1])\nresult = main(sys.argv[2:])"
_PUSH = "import sys\nfrom stages.release.push.__main__ import main\nresult = main(sys.argv[1:])"


def client(hub: HubServer, code: str, *arguments: object, token: str | None = "hf_ada", xet: bool = False) -> Any:
    """Run `code` in a new process and return what it put into `result`; it finds `api`, `CommitOperationAdd`, `sys.argv[1:]`."""
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


@dataclass
class Done:
    """How a program ended."""

    returncode: int
    stdout: str
    stderr: str


class Desk:
    """A Hub with one client process that stays, so that each test need not import the libraries anew."""

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.loop"],
            env=hub.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, *arguments: object, token: str | None = "hf_ada") -> Any:
        """Do as `client` does."""
        answer = self._ask(_BEFORE + textwrap.dedent(code), arguments, token)
        assert "Traceback" not in answer["stderr"], answer["stderr"]
        return answer["result"]

    def push(self, folder: Path, *arguments: str, repo: str = "ada/one", token: str | None = "hf_ada") -> Done:
        """Run `python -m stages.release.push`; its output never shows the token nor a traceback."""
        return self._done(_PUSH, (folder, "--repo", repo, *arguments), token)

    def pull(self, where: Path, *words: str, token: str | None = None) -> Done:
        """Run `python -m stages.release.pull` in the folder `where`; the same holds."""
        where.mkdir(exist_ok=True)
        return self._done(_PULL, (where, *words), token)

    def _done(self, code: str, arguments: tuple[object, ...], token: str | None) -> Done:
        answer = self._ask(code, arguments, token)
        seen = answer["stdout"] + answer["stderr"]
        assert token is None or token not in seen, seen
        assert "Traceback" not in seen, seen
        return Done(answer["result"], answer["stdout"], answer["stderr"])

    def _ask(self, code: str, arguments: tuple[object, ...], token: str | None) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        wish = {"code": code, "arguments": [str(argument) for argument in arguments], "token": token}
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the client process and the Hub."""
        self._process.communicate()
        self.hub.close()
