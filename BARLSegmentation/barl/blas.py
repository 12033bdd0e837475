# SPDX-License-Identifier: Apache-2.0
"""Memory that numpy's linear algebra takes for itself, taken early."""

from __future__ import annotations

import numpy as np


def reserve_buffer() -> None:
    """Have numpy's BLAS take its buffer now.

    OpenBLAS takes it at the first call. Where a scan has filled the memory by then, OpenBLAS prints a line and ends the
    process, and nobody is told why.
    """
    np.linalg.inv(np.eye(2))
