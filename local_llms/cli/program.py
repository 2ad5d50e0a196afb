"""The program ``local-llms``: how the command begins and ends.

It imports as little as possible before it is ready for Ctrl-C.
"""

from __future__ import annotations

import errno
import io
import os
import sys


def main() -> None:
    """Run the command line. Exit codes: 0, 1 for an error, 2 for wrong usage, 130 after Ctrl-C."""
    try:
        _prepare_streams()
        from local_llms.cli.main import app

        try:
            app()
        finally:
            # Here and not at the interpreter's end, where a full disk would be a traceback.
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("Stopped.\n")
        sys.exit(130)
    except OSError as error:
        _give_up(error)


def _prepare_streams() -> None:
    """No answer fails for a character that the terminal's encoding does not have, or for standard input being closed.

    Python does the same for standard error.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - open until the program ends
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _give_up(error: OSError) -> None:
    # The interpreter would flush it once more at its end, and complain.
    sys.stdout = None
    if error.errno != errno.EPIPE:
        from local_llms.cli.console import show_error

        where = f" ({error.filename})" if error.filename else ""
        show_error(OSError(f"Reading or writing failed: {error.strerror or error}{where}."))
    sys.exit(1)
