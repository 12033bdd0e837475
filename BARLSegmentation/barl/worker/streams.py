# SPDX-License-Identifier: Apache-2.0
"""A worker's standard streams: requests come in, protocol lines and nothing else go out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def serve(handlers: Callable[[], Mapping[Any, Any]]) -> None:
    """Keep standard output for protocol lines alone, then serve until the client is done.

    Args:
        handlers: Gives the requests' handlers (``barl.worker.server.Server``); what it imports may print.
    """
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

    from barl.blas import reserve_buffer
    from barl.worker.server import Server

    reserve_buffer()
    Server(handlers(), protocol_input, protocol_output).serve()
