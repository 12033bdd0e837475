# SPDX-License-Identifier: Apache-2.0
"""Scans and label maps: reading, geometry, intensity normalization, and the way to the model's grid and back."""
