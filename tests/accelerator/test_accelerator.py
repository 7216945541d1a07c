"""Everything that trains, on a device that is not the CPU: in a process of its own, for torch has one such device for good."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("cases.py")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_must_hold_on_a_gpu_holds_on_a_simulated_one():
    command = [sys.executable, "-m", "pytest", "-p", "tests.accelerator.simulated", "-n", "0", str(CASES)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=CASES.parents[2], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:]
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) >= 20
