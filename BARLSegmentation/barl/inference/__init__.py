# SPDX-License-Identifier: Apache-2.0
"""From a scan and a model to labels, uncertainty, hot-spots and volumes."""
