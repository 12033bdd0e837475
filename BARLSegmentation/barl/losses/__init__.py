# SPDX-License-Identifier: Apache-2.0
"""One file per idea of a paper, with its equation and its source.

Shared conventions: ``log_p`` are log-probabilities ``[B, C, k, j, i]`` (C classes, background first) in float32; a
target is a class distribution of the same shape, one-hot at full resolution and averaged where it was brought to a
coarser scale; scales are ordered coarse to fine; every loss is a scalar; if no voxel contributes, it is a
differentiable zero.
"""
