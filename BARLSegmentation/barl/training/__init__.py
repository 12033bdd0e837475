# SPDX-License-Identifier: Apache-2.0
"""From cases to a model: plan, cached cases, patches, loop, checkpoints."""
