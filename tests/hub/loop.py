"""The client process of a `Desk`: runs one piece of code after another, `python -m tests.hub.loop`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from typing import Any


def run(code: str, arguments: list[str], names: dict[str, Any]) -> None:
    """Run `code` with `sys.argv[1:]` set."""
    sys.argv = ["loop", *arguments]
    exec(compile(code, "<test>", "exec"), names)  # noqa: S102


def main() -> None:
    """Answer each line of the input ({code, arguments, token}) with one ({result, stdout, stderr})."""
    answers = sys.stdout
    for line in sys.stdin:
        wish = json.loads(line)
        os.environ.pop("HF_TOKEN", None)
        if wish["token"] is not None:
            os.environ["HF_TOKEN"] = wish["token"]
        out, err, names = io.StringIO(), io.StringIO(), dict[str, Any]()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                run(wish["code"], wish["arguments"], names)
            except Exception:
                traceback.print_exc()
        answer = {"result": names.get("result"), "stdout": out.getvalue(), "stderr": err.getvalue()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
