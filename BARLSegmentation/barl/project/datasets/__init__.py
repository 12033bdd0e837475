# SPDX-License-Identifier: Apache-2.0
"""Folders in the layouts in which data sets are handed on: nnU-Net, the Medical Segmentation Decathlon, BIDS."""
