# SPDX-License-Identifier: Apache-2.0
"""Predicting and training on another computer: the worker's protocol and the files it needs travel through ``ssh``.

This computer keeps the project. ``near`` answers the requests here and passes those that compute on to ``far``,
a worker on the other computer; both find the files of a project by their SHA-256, so that each travels once.
"""
