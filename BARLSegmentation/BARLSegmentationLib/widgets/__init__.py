# SPDX-License-Identifier: Apache-2.0
"""The panels of the module: what they show and what their buttons start. Work on data is done in ``logic``."""
