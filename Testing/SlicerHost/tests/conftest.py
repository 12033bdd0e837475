# SPDX-License-Identifier: Apache-2.0
"""The stand-in's own tests use the fixtures that it offers to others."""

pytest_plugins = ["slicerhost.fixtures"]
