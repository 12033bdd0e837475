# SPDX-License-Identifier: Apache-2.0
"""DICOM series as volumes, built and checked from the tags of every frame. Only pixels and geometry leave this room."""
