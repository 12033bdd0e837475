# SPDX-License-Identifier: Apache-2.0
"""Memory and threads of numpy's linear algebra."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np


def reserve_buffer() -> None:
    """Have numpy's BLAS take its buffer now.

    OpenBLAS takes it at the first call. Where a scan has filled the memory by then, OpenBLAS prints a line and ends the
    process, and nobody is told why.
    """
    np.linalg.inv(np.eye(2))


def one_thread() -> AbstractContextManager[Any]:
    """While it is open, matrix products of numpy and scipy use one thread.

    On a busy machine the threads of small products wait for each other far longer than they work. Slicer's Python lacks
    the package that this takes; there the process that fills is started with one thread.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return threadpool_limits(1, user_api="blas")
