# SPDX-License-Identifier: Apache-2.0
"""How good a segmentation is: overlap, surfaces, lesions, calibration and what differences mean."""
