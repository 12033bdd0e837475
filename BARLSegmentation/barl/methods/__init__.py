# SPDX-License-Identifier: Apache-2.0
"""Semi-supervised methods, one file each: a method is its losses put together.

A new method is one new file here, or in ``peers`` if it is there for comparison only, with a ``Method`` subclass that
has a ``name``; nothing else changes.
"""

from barl.methods.base import Batch, Method, available, get

__all__ = ["Batch", "Method", "available", "get"]
