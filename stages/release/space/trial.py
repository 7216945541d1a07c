"""Start a Space before it leaves: in a process of its own, without Groundup on its path and without a network."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StageError
from stages.release.space.assembly import GRADIO

TRIAL_SECONDS = 600
_MISSING = "gradio is missing"
_CODE = f"""
import importlib.util, pathlib, sys, urllib.request
if importlib.util.find_spec("gradio") is None:
    sys.exit("{_MISSING}")
sys.path.insert(0, "")
import app
here = pathlib.Path.cwd()
ours = [m for n, m in sys.modules.items() if n.partition(".")[0] in ("stages", "pipeline", "sampler") and m.__file__]
strangers = [m.__name__ for m in ours if not pathlib.Path(m.__file__).resolve().is_relative_to(here)]
assert not strangers, f"not taken along: {{strangers}}"
_, address, _ = app.build().queue().launch(prevent_thread_lock=True, quiet=True)
with urllib.request.urlopen(address, timeout=60) as answer:
    assert answer.status == 200
if hasattr(app, "go_on"):
    print("TRIAL", repr(list(app.go_on("A", 0.8, 8, 1))[-1]))
else:
    print("TRIAL a picture of", "x".join(map(str, app.samples(2, 0).size)))
"""


@dataclass(frozen=True)
class Trial:
    """What came of it; `shown` is what the app made, `missing` says what was not there to try it."""

    shown: str = ""
    missing: str = ""


def try_out(space: Path, model: Path, python: str) -> Trial:
    """Start the app of `space` with the model in the folder `model`, under the interpreter `python`.

    Raises:
        StageError: it does not start, or does not answer.
    """
    # No PYTHONPATH: what is not in the Space must not be found.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_", "GRADIO_"))}
    offline = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "MODEL_FOLDER": str(model.resolve())}
    local = {"no_proxy": "127.0.0.1,localhost", "PYTHONDONTWRITEBYTECODE": "1"}  # the folder stays as its manifest says
    try:
        done = subprocess.run(
            [python, "-c", _CODE],
            cwd=space,
            env=kept | offline | local,
            capture_output=True,
            text=True,
            timeout=TRIAL_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise StageError(f"--python {python}: there is no such program") from None
    except subprocess.TimeoutExpired:
        raise StageError(f"the Space did not answer within {TRIAL_SECONDS} s") from None
    if _MISSING in done.stderr:
        return Trial(missing=f"{_MISSING} in this environment; give one that has it: pip install gradio=={GRADIO}, then --python")
    shown = [line.removeprefix("TRIAL ") for line in done.stdout.splitlines() if line.startswith("TRIAL ")]
    if done.returncode or not shown:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise StageError(f"the Space does not start: {last}")
    return Trial(shown=shown[0])
