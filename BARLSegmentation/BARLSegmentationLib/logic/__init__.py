# SPDX-License-Identifier: Apache-2.0
"""MRML in, MRML out: no Qt and no torch."""
