# SPDX-License-Identifier: Apache-2.0
"""The co-training branches."""
