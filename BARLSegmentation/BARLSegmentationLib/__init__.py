# SPDX-License-Identifier: Apache-2.0
"""The part of BARL that needs Slicer.

Rules:
    * ``logic`` turns project data into MRML nodes and back: no Qt, no torch.
    * The engine (package ``barl``) is imported inside functions, so that Slicer starts without reading it.
    * Nothing is installed here, and nothing runs when a file is imported.
"""
