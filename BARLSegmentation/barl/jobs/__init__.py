# SPDX-License-Identifier: Apache-2.0
"""The jobs a person asks for, put together from project, training and inference; the worker and the CLI both call them.

Nothing is imported here: listing cases must not wait for torch.
"""
