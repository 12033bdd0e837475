# SPDX-License-Identifier: Apache-2.0
"""Methods to compare with, one file each, for the benchmark and ``barl train --method``.

Slicer's package leaves this folder out: a model of any method predicts without it.
"""
