"""A corpus far above the ceiling passes through the stage in memory below it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

CORPUS_MIB = 160
CEILING_MIB = 160
"""What the stage may take in private memory on top of Python and its libraries; one bucket of the sort is CORPUS_MIB / 256."""

WORKER = """
import resource, sys
from pathlib import Path
from stages.text.corpus.config import Config
from stages.text.corpus.origin import open_origin
from stages.text.corpus.run import build
from tests.harness import make_context

def private():
    lines = Path("/proc/self/status").read_text().splitlines()
    (data,) = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmData")]
    return data

config = Config(files=sys.argv[1], near_duplicate_threshold=0.8, max_overlap=1.0)
context = make_context(Path(sys.argv[2]))
limit = private() + (int(sys.argv[3]) << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
corpus = build(config, context, open_origin(config, context))
print(sum(split.bytes for split in corpus.splits.values()))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_corpus_larger_than_the_memory_allowed_is_read(tmp_path: Path):
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    lines = [" ".join(draw.choices(words, k=12)) for _ in range(20_000)]
    size = 0
    with open(tmp_path / "big.txt", "w") as file:
        while size < CORPUS_MIB << 20:
            size += file.write("\n".join(draw.choices(lines, k=400)) + "\n\n")
    command = [sys.executable, "-c", WORKER, str(tmp_path / "big.txt"), str(tmp_path / "corpus"), str(CEILING_MIB)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 0.99 * size
