"""Accelerate's launcher as the worker starts it: `python -m pipeline.ranks [options of accelerate launch] --module ...`.

When a rank fails, what went wrong stands in that rank's own words in the log. The launcher would add its own traceback,
which says nothing about the stage and buries them; here it ends with one line instead.
"""

from __future__ import annotations

import logging
import runpy
import sys


def launch() -> int:
    """Start the ranks and wait for them; return 1 when one of them failed."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        runpy.run_module("accelerate.commands.launch", run_name="__main__", alter_sys=True)
    except Exception as error:
        words = {
            "ChildFailedError": "one of the processes failed; the others were ended",
            "SignalException": "a stop was asked for; all processes were ended",
        }.get(type(error).__name__)  # torch's, by name: the engine imports no tensor library
        if words is None:
            raise
        sys.stderr.write(f"{words}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(launch())
