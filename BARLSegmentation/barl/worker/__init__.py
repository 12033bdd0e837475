# SPDX-License-Identifier: Apache-2.0
"""The worker process: reads requests and writes events, one JSON object a line (see ``docs/worker-protocol.md``).

Nothing is imported here, so that ``barl.worker.client`` stays light enough for Slicer's own process.
"""
