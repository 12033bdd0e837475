# SPDX-License-Identifier: Apache-2.0
"""What a project has come to, as one HTML page that needs no other file, and pictures of its cases."""
