# SPDX-License-Identifier: Apache-2.0
"""Volume files read in Python alone: damage is noticed, and no file can take the process down or claim its memory.

Each reader takes a path and gives a ``Volume``; every error is an ``InputError`` that names the file.
"""
