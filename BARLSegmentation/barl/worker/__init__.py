# SPDX-License-Identifier: Apache-2.0
"""The process Slicer talks to: one JSON object a line, requests in, events out (see ``docs/worker-protocol.md``).

Nothing is imported here, so that ``barl.worker.client`` stays light enough for Slicer's own process.
"""
