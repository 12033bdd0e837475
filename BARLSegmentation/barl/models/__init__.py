# SPDX-License-Identifier: Apache-2.0
"""Models on disk: a card in JSON and weights as safetensors."""
