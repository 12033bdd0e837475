# SPDX-License-Identifier: Apache-2.0
"""The case store: cases, labels, revisions, models, runs and journal in one folder that a person can read and back up.
The entry point is ``barl.project.store.Project``. Neither torch nor MONAI is imported:
Slicer's own process uses this room.
"""
