# SPDX-License-Identifier: Apache-2.0
"""The demo: the whole loop on example data, with a report."""
