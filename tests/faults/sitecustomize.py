"""Kills a real process at its n-th durable write; put this folder on PYTHONPATH.

GROUNDUP_TEST_KILL="ROLE:N:MARKER": in the process whose command line holds `pipeline.ROLE`, the N-th call of os.fsync,
os.replace, os.rename, os.unlink or os.rmdir creates the file MARKER and sends SIGKILL to the process itself. Once only.
"""

import os
import signal
import sys


def _arm(role: str, number: int, marker: str) -> None:
    if f"pipeline.{role}" not in sys.orig_argv or os.path.exists(marker):
        return
    count = 0

    def watched(function):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == number and not os.path.exists(marker):
                with open(marker, "w") as file:
                    file.write(f"{function.__name__} {args}")
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ("fsync", "replace", "rename", "unlink", "rmdir"):
        setattr(os, name, watched(getattr(os, name)))


if "GROUNDUP_TEST_KILL" in os.environ:
    _role, _number, _marker = os.environ["GROUNDUP_TEST_KILL"].split(":", 2)
    _arm(_role, int(_number), _marker)
