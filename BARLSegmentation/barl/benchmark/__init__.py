# SPDX-License-Identifier: Apache-2.0
"""Methods against each other: the same data, splits, network and budget, one result file per run."""
