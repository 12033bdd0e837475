# SPDX-License-Identifier: Apache-2.0
"""The main job on a fresh machine, with whatever data can be had there."""
