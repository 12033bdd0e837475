# SPDX-License-Identifier: Apache-2.0
"""The case store: cases, labels, revisions, models, runs and journal in one folder a person can read and back up.

Import what you need from the modules (``barl.project.store.Project`` is the door). Neither torch nor MONAI is imported:
Slicer's own process uses this room.
"""
