"""Start a Space before it leaves, without Groundup on its path and without the Hub, and use it in headless Chromium."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pipeline.errors import StageError
from stages.release.space.assembly import GRADIO
from stages.release.space.browser import CHROMIUM, Browser

TRIAL_SECONDS = 600
PATIENCE_SECONDS = 120
"""For an answer of the page."""
_MISSING = "gradio is missing"
_CODE = f"""
import importlib.util, pathlib, sys
if importlib.util.find_spec("gradio") is None:
    sys.exit("{_MISSING}")
sys.path.insert(0, "")
import app
here = pathlib.Path.cwd()
ours = [m for n, m in sys.modules.items() if n.partition(".")[0] in ("stages", "pipeline", "sampler") and m.__file__]
strangers = [m.__name__ for m in ours if not pathlib.Path(m.__file__).resolve().is_relative_to(here)]
assert not strangers, f"not taken along: {{strangers}}"
_, address, _ = app.build().queue().launch(prevent_thread_lock=True, quiet=True)
if hasattr(app, "go_on"):
    print("SHOWN", repr(list(app.go_on("A", 0.8, 8, 1))[-1]))
else:
    print("SHOWN a picture of", "x".join(map(str, app.samples(2, 0).size)))
print("ADDRESS", address, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Trial:
    """What came of it; `shown` is what the app made, `missing` says what was not there to try it."""

    shown: str = ""
    missing: str = ""


def try_out(space: Path, model: Path, python: str, chromium: str | None = CHROMIUM) -> Trial:
    """Start the app of `space` with the model in the folder `model` under the interpreter `python`, and use it in Chromium.

    Raises:
        StageError: it does not start, or does not do in the browser what it is for.
    """
    with tempfile.TemporaryFile("w+") as complaints, _started(space, model, python, complaints) as process:
        assert process.stdout is not None
        told: dict[str, str] = {}
        while "ADDRESS" not in told and (line := process.stdout.readline()):
            word, _, rest = line.strip().partition(" ")
            told[word] = rest
        if "ADDRESS" in told:
            if chromium is None:
                return Trial(missing="chromium, a system program, is missing; install it: apt-get install chromium")
            return Trial(shown=f"{told['SHOWN']}; {_look(told['ADDRESS'], chromium)}")
        process.wait()
        complaints.seek(0)
        complaint = complaints.read().strip() or "no message"
    if _MISSING in complaint:
        return Trial(missing=f"{_MISSING} in this environment; give one that has it: pip install gradio=={GRADIO}, then --python")
    if process.returncode == -signal.SIGKILL:
        raise StageError(f"the Space did not answer within {TRIAL_SECONDS} s")
    raise StageError(f"the Space does not start: {complaint.splitlines()[-1]}")


@contextmanager
def _started(space: Path, model: Path, python: str, complaints: TextIO) -> Iterator[subprocess.Popen[str]]:
    """Start the app; it ends with the block, or when it takes too long."""
    # No PYTHONPATH: what is not in the Space must not be found.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_", "GRADIO_"))}
    offline = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "MODEL_FOLDER": str(model.resolve())}
    local = {"no_proxy": "127.0.0.1,localhost", "PYTHONDONTWRITEBYTECODE": "1"}  # the folder stays as its manifest says
    try:
        process = subprocess.Popen(
            [python, "-c", _CODE],
            cwd=space,
            env=kept | offline | local,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
    except FileNotFoundError:
        raise StageError(f"--python {python}: there is no such program") from None
    deadline = threading.Timer(TRIAL_SECONDS, process.kill)
    deadline.start()
    try:
        yield process
    finally:
        deadline.cancel()
        process.kill()
        process.communicate()


def _look(address: str, chromium: str) -> str:
    """Do on the page what a visitor would do; return in words what was seen."""
    # Chromium's children may write into the profile for a moment after it has ended: what they leave is no failure of the app.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(chromium, Path(profile)) as page:
        page.open(address)
        page.wait("document.querySelector('#start, #draw') !== null")
        if page.run("document.querySelector('#prompt') !== null"):
            page.run(
                "(() => { const box = document.querySelector('#prompt textarea'); box.value = 'A';"
                "box.dispatchEvent(new Event('input', {bubbles: true})); document.querySelector('#start').click(); })()"
            )
            page.wait("document.querySelector('#written textarea').value.length > 1", PATIENCE_SECONDS)
            return "in Chromium a prompt was answered"
        drawn = "document.querySelector('#grid img')?.src"
        before = page.wait(drawn)
        page.run(
            "(() => { const box = document.querySelector('#seed input'); box.value = 7;"
            "box.dispatchEvent(new Event('input', {bubbles: true})); box.dispatchEvent(new Event('change', {bubbles: true}));"
            "document.querySelector('#draw').click(); })()"
        )
        page.wait(f"(s => s && s !== {json.dumps(before)})({drawn})")
        return "in Chromium another seed drew other images" + _latents(page)


def _latents(page: Browser) -> str:
    tab = "[...document.querySelectorAll('button[role=tab]')].find((one) => one.innerText.trim() === 'Latents')"
    if not page.run(f"{tab} !== undefined"):
        return ""
    page.run(f"{tab}.click()")
    page.wait("document.querySelector('#show') !== null")
    page.run("document.querySelector('#show').click()")
    page.wait("document.querySelector('#walk img')?.src")
    return ", a latent was shown"
