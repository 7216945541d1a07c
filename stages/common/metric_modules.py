"""Our `evaluate` modules, made from the imported Python module: offline, nothing written below the user's home.

`evaluate.load(path)` works on the same files and is what a user would type; it copies the file into a cache under HF_HOME.
A stage imports the module instead, so that its fingerprint sees which metric code it uses.
"""

from __future__ import annotations

import tempfile
from types import ModuleType

import evaluate


def load_metric(module: ModuleType) -> evaluate.Metric:
    """Return the metric that `module` (one of `stages.common.metrics`) defines.

    Raises:
        TypeError: the module defines no metric, or more than one (`evaluate.load` would take the first in silence).
    """
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, evaluate.EvaluationModule) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} defines {len(found)} metrics; there must be one per file")
    # A metric wants a directory at birth, for the case that it spills to disk; in memory it is never used.
    with tempfile.TemporaryDirectory() as folder:
        return found[0](cache_dir=folder, keep_in_memory=True)
