# SPDX-License-Identifier: Apache-2.0
"""BARL engine: semi-supervised volumetric segmentation from a few outlined scans.

Rules:
    * Nothing here imports Slicer, Qt, CTK or VTK; it runs anywhere Python runs.
    * ``errors``, ``progress``, ``images``, ``project`` and ``worker.client`` never import torch or MONAI: Slicer's own
      process imports them.
    * Imports point one way; the ranks are in ``docs/architecture.md`` and a test enforces them.
"""

__version__ = "0.2.0"
