# SPDX-License-Identifier: Apache-2.0
"""``python -m barl.worker``: serve requests on standard input, events on standard output."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> int:
    """Keep standard output for protocol lines alone, then serve until the client is done."""
    from barl.openmp import wait_briefly

    wait_briefly(os.environ)
    # Libraries print, in C too: from here on descriptor 1 is standard error, and only we hold the real output.
    # Not inheritable, so that no child keeps the client waiting for the end of the stream.
    protocol_output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    # Children must not eat requests: they get an empty standard input.
    protocol_input = os.fdopen(os.dup(0), "rb", buffering=0)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)

    from barl.worker.requests import handlers
    from barl.worker.server import Server

    Server(handlers(), protocol_input, protocol_output).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
