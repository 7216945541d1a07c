"""`python -m tests.hub_server [FOLDER]`: a Hub of one's own to rehearse on, until Ctrl-C; see `tests/hub/` for what it is.

It prints what to set in another terminal. Accounts: `me`, which may also write for the organisation `guild`.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from pathlib import Path

from tests.hub.server import HubServer

TOKEN = "hf_rehearsal"


def main(arguments: list[str]) -> int:
    """Serve until interrupted; without a folder everything is gone then."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts in a shell's background is born deaf to Ctrl-C
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(arguments[0]) if arguments else Path(scratch)
        hub = HubServer(root)
        hub.state.add_user(TOKEN, "me", orgs=("guild",))
        lines = [f"export HF_ENDPOINT={hub.url}", f"export HF_TOKEN={TOKEN}", f"export HF_HOME={root / 'home'}"]
        print("\n".join([*lines, "export HF_HUB_DISABLE_XET=1", "# in another terminal; Ctrl-C here ends it"]), flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            hub.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
