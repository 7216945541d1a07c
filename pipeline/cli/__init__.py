"""The command line: `groundup`, also `python -m pipeline`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys


def main() -> None:
    """Run one command and exit with its code; a user's mistake shows one message and no traceback."""
    from pipeline.cli.parser import parse
    from pipeline.errors import GroundupError

    arguments = parse(sys.argv[1:])
    try:
        code = arguments.command(arguments)
    except GroundupError as error:
        print(f"groundup: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        from pipeline.rank import describe_os_error

        print(f"groundup: {describe_os_error(error)}", file=sys.stderr)
        code = 1
    sys.exit(code)
