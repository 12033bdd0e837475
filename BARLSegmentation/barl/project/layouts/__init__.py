# SPDX-License-Identifier: Apache-2.0
"""The forms in which outlined cases leave a project; one file for each form."""
